//! What the SDK's errors are called here: by their code and kind, never by their text.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::Failure;

/// The failure that an error of the SDK stands for.
pub(super) fn of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Failure {
    match error {
        SdkError::ServiceError(answer) => coded(answer.err().code(), answer.raw().status().as_u16()),
        SdkError::ResponseError(_) => Failure::Malformed("the answer of AWS is not of the expected form"),
        SdkError::TimeoutError(_) => Failure::Timeout,
        other => caused(other),
    }
}

/// Codes of `GetSecretValue` and those common to all of AWS:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>.
fn coded(code: Option<&str>, status: u16) -> Failure {
    match code.unwrap_or_default() {
        // A secret that is marked for deletion is an invalid request.
        "ResourceNotFoundException" | "InvalidRequestException" => Failure::NotFound,
        "AccessDeniedException" | "AccessDenied" => Failure::Denied,
        "DecryptionFailure" => Failure::Malformed("AWS cannot decrypt it; is its key in KMS disabled?"),
        "InvalidParameterException" | "ValidationException" => {
            Failure::PathRefused("AWS knows no such name, stage or version id")
        }
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Failure::Throttled,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Failure::Login("AWS refuses the credentials"),
        _ => Failure::Status(status),
    }
}

/// Of what kept a question from being sent or answered.
fn caused(error: &(dyn Error + 'static)) -> Failure {
    let mut login = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return *failure;
        }
        match error.downcast_ref::<CredentialsError>() {
            // What was tried last is not why there are none.
            Some(CredentialsError::CredentialsNotLoaded(_)) => return Failure::Login(NONE),
            Some(CredentialsError::ProviderTimedOut(_)) => return Failure::Login(LATE),
            Some(CredentialsError::InvalidConfiguration(_)) => return Failure::Login(INVALID),
            Some(_) => login = Some(Failure::Login(REFUSED)),
            None => {}
        }
        cause = error.source();
    }
    login.unwrap_or(Failure::Internal)
}

const NONE: &str =
    "no AWS credentials in the environment, a profile, a web identity, a container or an instance";
const LATE: &str = "where the AWS credentials come from does not answer";
const INVALID: &str = "the AWS profile, file or variables of the login are not usable";
const REFUSED: &str = "where the AWS credentials come from refuses them";

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    fn dispatched(source: impl Error + Send + Sync + 'static) -> Failure {
        caused(&ConnectorError::other(source.into(), None))
    }

    #[test]
    fn a_login_that_ran_out_is_no_denial() {
        assert_eq!(coded(Some("AccessDeniedException"), 400), Failure::Denied);
        for code in ["ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"] {
            let failure = coded(Some(code), 400);
            assert!(matches!(failure, Failure::Login(_)) && !failure.revokes(), "{code}");
        }
    }

    #[test]
    fn what_is_marked_for_deletion_is_gone_and_what_is_unknown_is_a_status() {
        assert_eq!(coded(Some("InvalidRequestException"), 400), Failure::NotFound);
        assert_eq!(coded(Some("ThrottlingException"), 400), Failure::Throttled);
        assert_eq!(coded(Some("InternalServiceError"), 500), Failure::Status(500));
        assert_eq!(coded(None, 503), Failure::Status(503));
    }

    #[test]
    fn the_reason_is_found_below_what_the_sdk_wraps_it_in() {
        assert_eq!(dispatched(Failure::AddressRefused), Failure::AddressRefused);
        let tried = ConnectorError::io(Failure::Unreachable("no route").into());
        assert_eq!(dispatched(CredentialsError::not_loaded(tried)), Failure::Login(NONE));
        let refused = CredentialsError::provider_error(ConnectorError::user(Failure::AddressRefused.into()));
        assert_eq!(dispatched(refused), Failure::AddressRefused);
        assert_eq!(dispatched(CredentialsError::unhandled("sk-canary")), Failure::Login(REFUSED));
    }
}
