//! Which partitions this projector owns.

use sqlx::PgConnection;

use crate::locks;

/// The partitions whose locks a database session holds. Projectors share partitions evenly: each takes at most its fair
/// share, and releases the rest when the number of projectors grows.
#[derive(Debug)]
pub struct Ownership {
    partitions: u16,
    owned: Vec<i32>,
}

impl Ownership {
    /// The ownership of a session without locks.
    pub const fn new(partitions: u16) -> Self {
        Self {
            partitions,
            owned: Vec::new(),
        }
    }

    /// The owned partitions.
    pub fn partitions(&self) -> &[i32] {
        &self.owned
    }

    /// Acquires free partitions up to the fair share and releases those above it. Returns whether anything changed.
    /// No transaction may be open.
    pub async fn rebalance(&mut self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let members = locks::members(connection).await?;
        let fair_share = fair_share(self.partitions, members);
        let before = self.owned.len();
        if before > fair_share {
            for partition in self.owned.split_off(fair_share) {
                locks::unlock_partition(connection, partition).await?;
            }
            return Ok(true);
        }
        for partition in 0..i32::from(self.partitions) {
            if self.owned.len() == fair_share {
                break;
            }
            if !self.owned.contains(&partition)
                && locks::try_lock_partition(connection, partition).await?
            {
                self.owned.push(partition);
            }
        }
        Ok(self.owned.len() != before)
    }

    /// Releases all partitions.
    pub async fn release_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        for partition in self.owned.drain(..) {
            locks::unlock_partition(connection, partition).await?;
        }
        Ok(())
    }
}

/// The largest number of partitions for one of `members` projectors, itself included. The shares cover every partition.
fn fair_share(partitions: u16, members: i64) -> usize {
    usize::from(partitions).div_ceil(usize::try_from(members).unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::fair_share;

    #[test]
    fn the_shares_cover_every_partition() {
        for partitions in 1..20_u16 {
            for members in 1..20_usize {
                let fair_share = fair_share(partitions, i64::try_from(members).unwrap());
                assert!(
                    fair_share * members >= usize::from(partitions),
                    "{partitions} by {members}"
                );
                assert!(
                    (fair_share - 1) * members < usize::from(partitions),
                    "{partitions} by {members}"
                );
            }
        }
    }

    #[test]
    fn a_session_that_is_not_listed_yet_counts_as_one_member() {
        assert_eq!(fair_share(4, 0), 4);
    }
}
