//! Carries out the effects of payments at a payment provider that speaks `ordermesh.provider.v1`.

use std::time::Duration;

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
use engine::effects::{Attempt, EffectHandler, Unknown};
use tonic::{Code, Request, Status};

use crate::payment::{CHARGE_ATTEMPT, Effect, PaymentRules};

/// Target of the provider's effects: names its breaker, its limit and its metric.
pub const PROVIDER: &str = "payment-provider";

/// The field rule of an answer's reason, in characters.
const REASON_MAX_LEN: usize = 256;

/// A payment provider behind gRPC.
#[derive(Clone, Debug)]
pub struct Provider {
    client: PaymentProviderClient<Transport>,
    deadline: Duration,
}

impl Provider {
    /// A provider behind `peer`, which is the transport of its calls; a call without an answer within `deadline` is unknown.
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
    ) -> Result<Command, Unknown> {
        if attempt.may_have_run {
            let found = self.lookup(key).await?;
            if found.charge() != ChargeStatus::NotFound {
                return charge_answer(found.charge(), found.reference, found.reason);
            }
        }
        let request = self.request(ChargeRequest {
            idempotency_key: key.into(),
            amount: Some(amount.clone()),
            customer_id: customer_id.into(),
        });
        let answer = self.client.clone().charge(request).await;
        let answer = answer.map_err(unknown)?.into_inner();
        charge_answer(answer.status(), answer.reference, answer.reason)
    }

    /// Needs no look-up before a repetition: a void answers what the key's charge has come to.
    async fn void(&self, charge_key: &str) -> Result<Command, Unknown> {
        let request = self.request(VoidRequest {
            idempotency_key: charge_key.into(),
        });
        let answer = self.client.clone().void(request).await;
        let answer = answer.map_err(unknown)?.into_inner();
        charge_answer(answer.status(), answer.reference, answer.reason)
    }

    async fn refund(
        &self,
        key: &str,
        charge_key: &str,
        amount: &Money,
        number: u32,
        attempt: Attempt,
    ) -> Result<Command, Unknown> {
        if attempt.may_have_run {
            let found = self.lookup(key).await?;
            // That a key is unknown or still worked at is said in the charge's field, of a refund's key too.
            match found.charge() {
                ChargeStatus::NotFound => {}
                ChargeStatus::InProgress => return Err(in_progress()),
                _ => return refund_answer(found.refund(), found.reference, found.reason, number),
            }
        }
        let request = self.request(RefundRequest {
            idempotency_key: key.into(),
            charge_key: charge_key.into(),
            amount: Some(amount.clone()),
        });
        let answer = self.client.clone().refund(request).await;
        let answer = answer.map_err(unknown)?.into_inner();
        refund_answer(answer.status(), answer.reference, answer.reason, number)
    }

    async fn lookup(&self, key: &str) -> Result<LookupResponse, Unknown> {
        let request = self.request(LookupRequest {
            idempotency_key: key.into(),
        });
        let found = self.client.clone().lookup(request).await;
        Ok(found.map_err(unknown)?.into_inner())
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
    ) -> Result<Command, Unknown> {
        match effect {
            Effect::Charge {
                amount,
                customer_id,
            } => self.charge(key, amount, customer_id, attempt).await,
            Effect::Void { charge_key } => self.void(charge_key).await,
            Effect::Refund {
                attempt: number,
                charge_key,
                amount,
            } => self.refund(key, charge_key, amount, *number, attempt).await,
        }
    }
}

/// What became of a charge, said by a charge, a void or a look-up alike.
fn charge_answer(
    status: ChargeStatus,
    reference: String,
    reason: String,
) -> Result<Command, Unknown> {
    let attempt = CHARGE_ATTEMPT;
    match status {
        ChargeStatus::Charged => Ok(Command::RecordCharged(RecordCharged {
            attempt,
            provider_reference: reference,
        })),
        ChargeStatus::Declined => Ok(Command::RecordChargeDeclined(RecordChargeDeclined {
            attempt,
            reason: reason.chars().take(REASON_MAX_LEN).collect(),
        })),
        // To a charge this is the answer when a void came first: the payment is being cancelled, by this process
        // or by a later owner.
        ChargeStatus::Voided => Ok(Command::RecordChargeVoided(RecordChargeVoided { attempt })),
        ChargeStatus::InProgress => Err(in_progress()),
        ChargeStatus::Unspecified | ChargeStatus::NotFound => Err(no_answer()),
    }
}

fn refund_answer(
    status: RefundStatus,
    reference: String,
    reason: String,
    attempt: u32,
) -> Result<Command, Unknown> {
    match status {
        RefundStatus::Refunded => Ok(Command::RecordRefunded(RecordRefunded {
            attempt,
            provider_reference: reference,
        })),
        RefundStatus::Refused => Ok(Command::RecordRefundRefused(RecordRefundRefused {
            attempt,
            reason: reason.chars().take(REASON_MAX_LEN).collect(),
        })),
        RefundStatus::Unspecified => Err(no_answer()),
    }
}

fn in_progress() -> Unknown {
    Unknown {
        reason: "the provider is still at it".into(),
        partner_fault: false,
    }
}

fn no_answer() -> Unknown {
    Unknown {
        reason: "the provider's answer says nothing about the key".into(),
        partner_fault: true,
    }
}

/// A call that failed: only the codes that speak of this one request leave the provider itself out of doubt.
fn unknown(status: Status) -> Unknown {
    let about_the_request = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    );
    Unknown {
        reason: format!("the provider failed: {status}"),
        partner_fault: !about_the_request,
    }
}

#[cfg(test)]
mod tests;
