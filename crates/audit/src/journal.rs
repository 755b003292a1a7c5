//! What a client notes of the answers that it gets.

/// One thing that a client was told, or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientObservation {
    /// PlaceOrder was answered: the order exists.
    Acknowledged {
        /// The order.
        order_id: String,
        /// Its total in minor units, by the lines that were sent.
        minor_units: i64,
        /// Version in the answer; 0 for a receipt without one.
        version: u64,
    },
    /// PlaceOrder was refused for good: there is no order by this call.
    Refused {
        /// The order id that was sent.
        order_id: String,
    },
    /// A reader saw an order in this version.
    Read {
        /// Who; versions never go back for one and the same reader.
        reader: String,
        /// The order.
        order_id: String,
        /// Its version.
        version: u64,
    },
}
