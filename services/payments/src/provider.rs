//! Executes the effects of payments: a client of a payment provider with the API `ordermesh.provider.v1`.

use std::time::Duration;

use chassis::error::blames_request;
use chassis::grpc::Transport;
use contracts::core::v1::Money;
use contracts::payments::v1::payment_command::Command;
use contracts::payments::v1::{
    RecordChargeDeclined, RecordChargeVoided, RecordCharged, RecordRefundRefused, RecordRefunded,
};
use contracts::provider::v1::payment_provider_client::PaymentProviderClient;
use contracts::provider::v1::{
    ChargeRequest, ChargeStatus, LookupRequest, LookupResponse, RefundRequest, RefundStatus,
    VoidRequest,
};
use contracts::rules::shorten_reason;
use engine::effects::{Attempt, EffectHandler, Indeterminate};
use tonic::{Request, Status};

use crate::payment::{CHARGE_ATTEMPT, Effect, PaymentRules};

/// Target of the provider's effects: the name of its breaker and limit, and the label of its metrics.
pub const PROVIDER: &str = "payment-provider";

/// The partner in the reasons of indeterminate answers.
const PARTNER: &str = "provider";

/// A gRPC client of a payment provider.
#[derive(Clone, Debug)]
pub struct Provider {
    client: PaymentProviderClient<Transport>,
    deadline: Duration,
}

impl Provider {
    /// Calls the provider through `peer`. The result of a call without a response within `deadline` is unknown.
    pub fn new(peer: impl Into<Transport>, deadline: Duration) -> Self {
        Self {
            client: PaymentProviderClient::new(peer.into()),
            deadline,
        }
    }

    async fn charge(
        &self,
        key: &str,
        amount: &Money,
        customer_id: &str,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        if attempt.may_have_run {
            let found = self.lookup(key).await?;
            if found.charge() != ChargeStatus::NotFound {
                return charge_command(found.charge(), found.reference, found.reason);
            }
        }
        let request = self.request(ChargeRequest {
            idempotency_key: key.into(),
            amount: Some(amount.clone()),
            customer_id: customer_id.into(),
        });
        let answer = self.client.clone().charge(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        charge_command(answer.status(), answer.reference, answer.reason)
    }

    /// Needs no look-up before a repetition: the response to a void contains the result of the charge.
    async fn void(&self, charge_key: &str) -> Result<Command, Indeterminate> {
        let request = self.request(VoidRequest {
            idempotency_key: charge_key.into(),
        });
        let answer = self.client.clone().void(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        charge_command(answer.status(), answer.reference, answer.reason)
    }

    async fn refund(
        &self,
        key: &str,
        charge_key: &str,
        amount: &Money,
        refund_attempt: u32,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        if attempt.may_have_run {
            let found = self.lookup(key).await?;
            // Also for the key of a refund, the field `charge` says whether the key is unknown or in progress.
            match found.charge() {
                ChargeStatus::NotFound => {}
                ChargeStatus::InProgress => return Err(Indeterminate::in_progress(PARTNER)),
                _ => {
                    return refund_command(
                        found.refund(),
                        found.reference,
                        found.reason,
                        refund_attempt,
                    );
                }
            }
        }
        let request = self.request(RefundRequest {
            idempotency_key: key.into(),
            charge_key: charge_key.into(),
            amount: Some(amount.clone()),
        });
        let answer = self.client.clone().refund(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        refund_command(
            answer.status(),
            answer.reference,
            answer.reason,
            refund_attempt,
        )
    }

    async fn lookup(&self, key: &str) -> Result<LookupResponse, Indeterminate> {
        let request = self.request(LookupRequest {
            idempotency_key: key.into(),
        });
        let found = self.client.clone().lookup(request).await;
        Ok(found.map_err(failed)?.into_inner())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }
}

impl EffectHandler<PaymentRules> for Provider {
    fn target(&self, _effect: &Effect) -> &'static str {
        PROVIDER
    }

    async fn perform(
        &self,
        key: &str,
        effect: &Effect,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        match effect {
            Effect::Charge {
                amount,
                customer_id,
            } => self.charge(key, amount, customer_id, attempt).await,
            Effect::Void { charge_key } => self.void(charge_key).await,
            Effect::Refund {
                attempt: refund_attempt,
                charge_key,
                amount,
            } => {
                self.refund(key, charge_key, amount, *refund_attempt, attempt)
                    .await
            }
        }
    }
}

/// The command for the result of a charge. Charges, voids and look-ups all return it.
fn charge_command(
    status: ChargeStatus,
    reference: String,
    reason: String,
) -> Result<Command, Indeterminate> {
    let attempt = CHARGE_ATTEMPT;
    match status {
        ChargeStatus::Charged => Ok(Command::RecordCharged(RecordCharged {
            attempt,
            provider_reference: reference,
        })),
        ChargeStatus::Declined => Ok(Command::RecordChargeDeclined(RecordChargeDeclined {
            attempt,
            reason: shorten_reason(&reason),
        })),
        // A charge gets this response when a void came first: this process or a later owner is cancelling the payment.
        ChargeStatus::Voided => Ok(Command::RecordChargeVoided(RecordChargeVoided { attempt })),
        ChargeStatus::InProgress => Err(Indeterminate::in_progress(PARTNER)),
        ChargeStatus::Unspecified | ChargeStatus::NotFound => {
            Err(Indeterminate::no_result(PARTNER))
        }
    }
}

fn refund_command(
    status: RefundStatus,
    reference: String,
    reason: String,
    attempt: u32,
) -> Result<Command, Indeterminate> {
    match status {
        RefundStatus::Refunded => Ok(Command::RecordRefunded(RecordRefunded {
            attempt,
            provider_reference: reference,
        })),
        RefundStatus::Refused => Ok(Command::RecordRefundRefused(RecordRefundRefused {
            attempt,
            reason: shorten_reason(&reason),
        })),
        RefundStatus::Unspecified => Err(Indeterminate::no_result(PARTNER)),
    }
}

fn failed(status: Status) -> Indeterminate {
    Indeterminate::failed(PARTNER, &status, blames_request(status.code()))
}

#[cfg(test)]
mod tests;
