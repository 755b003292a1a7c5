//! Observations of a client.

/// One answer that a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientObservation {
    /// PlaceOrder was accepted: the order exists.
    Acknowledged {
        /// The order.
        order_id: String,
        /// The total of the sent lines, in minor units.
        minor_units: i64,
        /// The version in the answer; 0 for an answer without one.
        version: u64,
    },
    /// PlaceOrder was refused with a final answer: this call creates no order.
    Refused {
        /// The order id that was sent.
        order_id: String,
    },
    /// A reader received an order in this version.
    Read {
        /// The reader. The versions that one reader receives never decrease.
        reader: String,
        /// The order.
        order_id: String,
        /// Its version.
        version: u64,
    },
}
