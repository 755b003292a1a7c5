//! Converts a journal into observations of a client, for the audit.

use std::collections::HashMap;
use std::path::Path;

use audit::ClientObservation;
use uuid::Uuid;

use super::{Error, Fact};

/// Reads the observations of a journal.
///
/// # Errors
///
/// The file cannot be read, or is not a journal.
pub fn read(path: &Path) -> Result<Vec<ClientObservation>, Error> {
    Ok(observations(super::facts(path)?))
}

fn observations(facts: Vec<Fact>) -> Vec<ClientObservation> {
    // The last order id of each basket.
    let mut order_ids: HashMap<String, Uuid> = HashMap::new();
    let observation = |fact| match fact {
        Fact::Chosen { basket, order_id } => {
            order_ids.insert(basket, order_id);
            None
        }
        Fact::Acknowledged {
            order_id,
            version,
            cents,
            ..
        } => Some(ClientObservation::Acknowledged {
            order_id: order_id.to_string(),
            minor_units: cents,
            version,
        }),
        Fact::Refused { basket, .. } => {
            order_ids
                .get(&basket)
                .map(|order_id| ClientObservation::Refused {
                    order_id: order_id.to_string(),
                })
        }
        Fact::Read {
            reader,
            order_id,
            version,
        } => Some(ClientObservation::Read {
            reader,
            order_id: order_id.to_string(),
            version,
        }),
        Fact::File { .. } | Fact::LineRefused { .. } => None,
    };
    facts.into_iter().filter_map(observation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_order_id_of_its_basket() {
        let order_id = Uuid::now_v7();
        let basket = "basket".to_owned();
        let reason = "no such product".to_owned();
        let read = observations(vec![
            Fact::Chosen {
                basket: basket.clone(),
                order_id,
            },
            Fact::Refused { basket, reason },
        ]);
        let order_id = order_id.to_string();
        assert_eq!(read, [ClientObservation::Refused { order_id }]);
    }
}
