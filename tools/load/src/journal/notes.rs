//! The journal of `ordermesh load` as notes of a client.

use std::collections::HashMap;
use std::path::Path;

use audit::ClientObservation;
use uuid::Uuid;

use super::{Error, Fact};

/// Reads all of it.
///
/// # Errors
///
/// It cannot be read, or is none.
pub fn read(path: &Path) -> Result<Vec<ClientObservation>, Error> {
    Ok(of(super::facts(path)?))
}

fn of(facts: Vec<Fact>) -> Vec<ClientObservation> {
    // By basket: under which id it was sent last.
    let mut chosen: HashMap<String, Uuid> = HashMap::new();
    let note = |fact| match fact {
        Fact::Chosen { basket, order_id } => {
            chosen.insert(basket, order_id);
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
            chosen
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
    facts.into_iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_that_of_the_id_which_the_basket_was_sent_under() {
        let order_id = Uuid::now_v7();
        let basket = "basket".to_owned();
        let reason = "no such product".to_owned();
        let notes = of(vec![
            Fact::Chosen {
                basket: basket.clone(),
                order_id,
            },
            Fact::Refused { basket, reason },
        ]);
        let order_id = order_id.to_string();
        assert_eq!(notes, [ClientObservation::Refused { order_id }]);
    }
}
