//! `ordermesh order cancel`.

use anyhow::anyhow;
use contracts::orders::v1::{CancelOrderRequest, CancelOrderResponse, EndReason, OrderStatus};
use orders::reasons::TOO_LATE;
use platform_client::retry;
use platform_client::{Api, Clients, request};
use terminal::{print_json, print_line, status};
use tonic::{Code, Status};
use uuid::Uuid;

use super::order_id;

/// Flags of `ordermesh order cancel`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The answer means accepted: reservations are released and charges refunded, but a parcel that the carrier has taken
meanwhile is still delivered. Watch the order to see how it ends. The command may be repeated.

Example:
  ordermesh order cancel 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11 --customer ada")]
pub struct Args {
    /// The order's id
    #[arg(value_name = "ID", value_parser = order_id)]
    id: Uuid,
    /// Who asks: the order's customer
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Requests the cancellation and prints the meaning of the answer.
///
/// # Errors
///
/// It is too late, the customer has no such order, or the API does not answer.
pub async fn cancel(args: &Args) -> anyhow::Result<()> {
    let mut clients = args.api.connect();
    let order_id = args.id.to_string();
    let asked = CancelOrderRequest {
        order_id: order_id.clone(),
        customer_id: args.customer.clone(),
    };
    let answer = clients
        .orders
        .cancel_order(request(asked))
        .await
        .map_err(|status| refused(&clients, args, &status))?
        .into_inner();
    if args.json {
        return print_json(&answer);
    }
    print_line(format!("{order_id}  {}", meaning(&order_id, &answer)))
}

fn meaning(order_id: &str, answer: &CancelOrderResponse) -> String {
    let state = status(answer.status(), EndReason::Unspecified);
    let version = answer.version;
    match answer.status() {
        OrderStatus::Cancelled => format!("{state}, version {version}"),
        _ => format!(
            "accepted, {state}, version {version}; how it ends: \
             ordermesh order watch {order_id} --after-version {version}"
        ),
    }
}

fn refused(clients: &Clients, args: &Args, status: &Status) -> anyhow::Error {
    let Args { id, customer, .. } = args;
    match status.code() {
        Code::FailedPrecondition if retry::reason(status) == TOO_LATE => {
            anyhow!("too late to cancel {id}: {}", status.message())
        }
        Code::NotFound => anyhow!("{customer} has no order {id}"),
        _ => clients.failed(status).context(format!("order {id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_cancellation_names_the_command_to_watch_it() {
        let answer = |status: OrderStatus| CancelOrderResponse {
            status: status.into(),
            version: 7,
        };
        let accepted = meaning("o", &answer(OrderStatus::Cancelling));
        assert!(
            accepted.starts_with("accepted, cancelling, version 7"),
            "{accepted}"
        );
        assert!(
            accepted.ends_with("watch o --after-version 7"),
            "{accepted}"
        );
        assert_eq!(
            meaning("o", &answer(OrderStatus::Cancelled)),
            "cancelled, version 7"
        );
    }
}
