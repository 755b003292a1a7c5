//! `ordermesh order place`.

use contracts::orders::v1::{
    Address, Contact, EndReason, OrderLine, OrderStatus, PlaceOrderRequest, PlaceOrderResponse,
    PlaceOrderWait,
};
use platform_client::retry;
use platform_client::{Api, Clients, request};
use terminal::{print_json, print_line};
use tonic::Status;
use uuid::Uuid;

use super::order_id;

/// Flags of `ordermesh order place`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Prices are in minor units of the currency: 1250 is 12.50 EUR.

Examples:
  ordermesh order place --customer ada --line mug:2:1250
  ordermesh order place --customer ada --line mug:2:1250:100 --line tea:1:499 --currency USD
  ordermesh order place --customer ada --line mug:1:1250 --wait confirmed")]
pub struct Args {
    /// Who orders
    #[arg(long, value_name = "ID")]
    customer: String,
    /// A line of the order, once for each product; the discount is taken off the whole line
    #[arg(long = "line", value_name = "SKU:QUANTITY:UNIT_PRICE[:DISCOUNT]", required = true, value_parser = line)]
    lines: Vec<OrderLine>,
    /// The order's id, a fresh UUIDv7: the same id is the same order [default: a new one]
    #[arg(long, value_name = "UUID", value_parser = order_id)]
    id: Option<Uuid>,
    /// ISO 4217 code of all prices
    #[arg(long, value_name = "CODE", default_value = "EUR")]
    currency: String,
    /// What the answer waits for
    #[arg(long, value_name = "WHAT", default_value = "created")]
    wait: Wait,
    #[command(flatten)]
    contact: ContactArgs,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// What the answer waits for.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The order cannot get lost any more
    Durable,
    /// The order is created or refused
    Created,
    /// The order is confirmed, or has ended otherwise
    Confirmed,
}

impl From<Wait> for PlaceOrderWait {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Durable => Self::Durable,
            Wait::Created => Self::Created,
            Wait::Confirmed => Self::Confirmed,
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
struct ContactArgs {
    /// Mail address
    #[arg(long, value_name = "ADDRESS", default_value = "ada@example.com")]
    email: String,
    /// Phone number
    #[arg(long, value_name = "NUMBER", default_value = "")]
    phone: String,
    /// Who receives the parcel
    #[arg(long, value_name = "NAME", default_value = "Ada Lovelace")]
    name: String,
    /// Street and number
    #[arg(long, value_name = "STREET", default_value = "12 St James's Square")]
    street: String,
    /// Postal code
    #[arg(long, value_name = "CODE", default_value = "SW1Y 4JH")]
    postal_code: String,
    /// City
    #[arg(long, value_name = "CITY", default_value = "London")]
    city: String,
    /// ISO 3166-1 code
    #[arg(long, value_name = "CODE", default_value = "GB")]
    country: String,
}

/// Places an order and prints the meaning of the answer.
///
/// # Errors
///
/// The API refuses the order or does not answer.
pub async fn place(args: &Args) -> anyhow::Result<()> {
    let order_id = args.id.unwrap_or_else(Uuid::now_v7);
    let contact = args.contact.clone();
    let order = PlaceOrderRequest {
        order_id: order_id.to_string(),
        customer_id: args.customer.clone(),
        contact: Some(Contact {
            email: contact.email,
            phone: contact.phone,
            address: Some(Address {
                name: contact.name,
                street: contact.street,
                postal_code: contact.postal_code,
                city: contact.city,
                country: contact.country,
            }),
        }),
        lines: args.lines.clone(),
        currency: args.currency.clone(),
        wait: PlaceOrderWait::from(args.wait).into(),
    };
    let mut clients = args.api.connect();
    let answer = clients.orders.place_order(request(order)).await;
    let answer = answer
        .map_err(|status| unanswered(&clients, order_id, &status))?
        .into_inner();
    if args.json {
        return print_json(&answer);
    }
    print_line(format!("{order_id}  {}", meaning(&answer)))
}

fn meaning(answer: &PlaceOrderResponse) -> String {
    match answer.status() {
        OrderStatus::Unspecified => {
            format!(
                "durable; what becomes of it: ordermesh order watch {}",
                answer.order_id
            )
        }
        status => format!(
            "{}, version {}",
            terminal::status(status, EndReason::Unspecified),
            answer.version
        ),
    }
}

fn unanswered(clients: &Clients, order_id: Uuid, status: &Status) -> anyhow::Error {
    let error = clients.failed(status).context(format!("order {order_id}"));
    if retry::is_retryable(status) {
        error.context(format!(
            "it is unknown whether the order is placed; repeat the command with --id {order_id}"
        ))
    } else {
        error
    }
}

fn line(text: &str) -> Result<OrderLine, String> {
    const EXPECTED: &str = "expected SKU:QUANTITY:UNIT_PRICE or SKU:QUANTITY:UNIT_PRICE:DISCOUNT";
    let parts: Vec<_> = text.split(':').collect();
    let (sku, quantity, unit_price, discount) = match parts[..] {
        [sku, quantity, unit_price] => (sku, quantity, unit_price, "0"),
        [sku, quantity, unit_price, discount] => (sku, quantity, unit_price, discount),
        _ => return Err(EXPECTED.to_owned()),
    };
    let minor_units = |what: &str, text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("{what} '{text}' is not a whole number of minor units"))
    };
    Ok(OrderLine {
        sku: sku.to_owned(),
        quantity: quantity
            .parse()
            .map_err(|_| format!("quantity '{quantity}' is not a number of pieces"))?,
        unit_price: minor_units("unit price", unit_price)?,
        discount: minor_units("discount", discount)?,
        description: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed() {
        let read = line("mug:2:1250:100").unwrap();
        assert_eq!(
            (
                read.sku.as_str(),
                read.quantity,
                read.unit_price,
                read.discount
            ),
            ("mug", 2, 1250, 100)
        );
        assert_eq!(line("mug:2:1250").unwrap().discount, 0);
    }

    #[test]
    fn a_durable_order_names_the_command_to_watch_it() {
        let receipt = PlaceOrderResponse {
            order_id: "o".into(),
            ..Default::default()
        };
        assert_eq!(
            meaning(&receipt),
            "durable; what becomes of it: ordermesh order watch o"
        );
        let created = PlaceOrderResponse {
            status: OrderStatus::Pending.into(),
            version: 1,
            ..receipt
        };
        assert_eq!(meaning(&created), "pending, version 1");
    }

    #[test]
    fn an_invalid_line_is_refused_with_the_reason() {
        for (text, wrong) in [
            ("mug", "expected SKU"),
            ("mug:1:2:3:4", "expected SKU"),
            ("mug:-1:2", "quantity '-1'"),
            ("mug:1:12.50", "unit price '12.50'"),
            ("mug:1:2:x", "discount 'x'"),
        ] {
            let message = line(text).unwrap_err();
            assert!(message.contains(wrong), "{message}");
        }
    }
}
