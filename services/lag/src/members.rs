//! The members of a group and their partitions.

use rdkafka::groups::GroupInfo;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Instance name.
    pub name: String,
    /// Assigned partitions, in ascending order.
    pub partitions: Vec<i32>,
}

/// The members of a group, sorted by name. `prefix` precedes the instance name in member ids.
pub fn of(group: &GroupInfo, prefix: &str) -> Vec<Member> {
    let mut members: Vec<_> = group
        .members()
        .iter()
        .map(|member| Member {
            name: instance(member.id(), prefix).to_owned(),
            partitions: member.assignment().and_then(partitions).unwrap_or_default(),
        })
        .collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members
}

/// The instance name in a member id. The id of a static member is its instance id followed by a UUID.
fn instance<'a>(member_id: &'a str, prefix: &str) -> &'a str {
    const UUID: usize = "-0190d9a2-7d3a-7c1e-8b1a-0123456789ab".len();
    let instance = member_id
        .len()
        .checked_sub(UUID)
        .and_then(|end| member_id.get(..end))
        .filter(|instance| !instance.is_empty())
        .unwrap_or(member_id);
    instance.strip_prefix(prefix).unwrap_or(instance)
}

/// The partitions of an assignment in the encoding of Kafka's clients: a version, then for each topic its name and its
/// partitions. `None` when it is encoded differently.
fn partitions(assignment: &[u8]) -> Option<Vec<i32>> {
    let mut bytes = Bytes(assignment);
    bytes.take::<2>()?;
    let topics = bytes.number()?;
    let mut partitions = Vec::new();
    for _ in 0..topics {
        let name = u16::from_be_bytes(bytes.take()?);
        bytes.skip(usize::from(name))?;
        for _ in 0..bytes.number()? {
            partitions.push(bytes.number()?);
        }
    }
    partitions.sort_unstable();
    Some(partitions)
}

/// The bytes that are not decoded yet.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn number(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let count = |count: usize| i32::try_from(count).unwrap().to_be_bytes();
        let mut bytes = vec![0, 1];
        bytes.extend(count(topics.len()));
        for (topic, partitions) in topics {
            bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(count(partitions.len()));
            bytes.extend(
                partitions
                    .iter()
                    .flat_map(|partition| partition.to_be_bytes()),
            );
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_is_decoded() {
        let bytes = encoded(&[("orders.commands", &[3, 0])]);
        assert_eq!(partitions(&bytes), Some(vec![0, 3]));
        assert_eq!(partitions(&encoded(&[])), Some(vec![]));
        for end in 0..bytes.len() - 4 {
            assert_eq!(partitions(&bytes[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn a_static_member_is_named_by_its_instance() {
        let id = "a.orders.host-9464-0190d9a2-7d3a-7c1e-8b1a-0123456789ab";
        assert_eq!(instance(id, "a.orders."), "host-9464");
        assert_eq!(instance("stranger", "a.orders."), "stranger");
        assert_eq!(instance("", "a.orders."), "");
    }
}
