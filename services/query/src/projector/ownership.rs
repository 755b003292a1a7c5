//! Which partitions this projector owns.

use sqlx::PgConnection;

use crate::locks;

/// The partitions whose locks a session holds. Projectors share them evenly: each takes at most its part, and leaves
/// the rest to others when their number grows.
#[derive(Debug)]
pub struct Ownership {
    partitions: u16,
    owned: Vec<i32>,
}

impl Ownership {
    /// Of a session that holds no lock yet.
    pub const fn new(partitions: u16) -> Self {
        Self {
            partitions,
            owned: Vec::new(),
        }
    }

    /// The partitions owned.
    pub fn partitions(&self) -> &[i32] {
        &self.owned
    }

    /// Takes what is free and gives up what is too much; says whether anything changed. No transaction may be open.
    pub async fn settle(&mut self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let members = locks::members(connection).await?;
        let share = share(self.partitions, members);
        let before = self.owned.len();
        if before > share {
            for partition in self.owned.split_off(share) {
                locks::release_partition(connection, partition).await?;
            }
            return Ok(true);
        }
        for partition in 0..i32::from(self.partitions) {
            if self.owned.len() == share {
                break;
            }
            if !self.owned.contains(&partition)
                && locks::try_partition(connection, partition).await?
            {
                self.owned.push(partition);
            }
        }
        Ok(self.owned.len() != before)
    }

    /// Gives up everything.
    pub async fn release_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        for partition in self.owned.drain(..) {
            locks::release_partition(connection, partition).await?;
        }
        Ok(())
    }
}

/// The part of one of `members` projectors, itself included; together the parts cover every partition.
fn share(partitions: u16, members: i64) -> usize {
    usize::from(partitions).div_ceil(usize::try_from(members).unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn the_parts_cover_every_partition() {
        for partitions in 1..20_u16 {
            for members in 1..20_usize {
                let share = share(partitions, i64::try_from(members).unwrap());
                assert!(
                    share * members >= usize::from(partitions),
                    "{partitions} by {members}"
                );
                assert!(
                    (share - 1) * members < usize::from(partitions),
                    "{partitions} by {members}"
                );
            }
        }
    }

    #[test]
    fn a_session_that_does_not_see_itself_counts_as_one() {
        assert_eq!(share(4, 0), 4);
    }
}
