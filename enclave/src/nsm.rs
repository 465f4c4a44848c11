//! The Nitro Secure Module, reached through `/dev/nsm`.

use aws_nitro_enclaves_nsm_api::{
    api::{Digest, ErrorCode, Request, Response},
    driver::{nsm_exit, nsm_init, nsm_process_request},
};

use crate::{AttestError, Attester, Claims};

/// The number of PCRs a document can carry; all are locked at [`NitroSecureModule::open`].
const PCRS: u16 = 32;

/// An open session with the Nitro Secure Module, with every PCR locked.
///
/// Locking unextended PCRs at boot means that no later code in this enclave can add to what its documents say.
#[derive(Debug)]
pub struct NitroSecureModule {
    device: i32,
    module_id: String,
}

impl NitroSecureModule {
    /// Opens `/dev/nsm`, checks that its PCR bank is SHA-384, and locks PCR0 to PCR31.
    pub fn open() -> Result<Self, NsmError> {
        let device = nsm_init();
        if device < 0 {
            return Err(NsmError::NoDevice);
        }
        let mut nsm = Self { device, module_id: String::new() };
        nsm.module_id = nsm.describe()?;
        nsm.lock_pcrs()?;
        Ok(nsm)
    }

    /// Up to 256 random bytes from the module's hardware generator.
    pub(crate) fn random(&self) -> Result<Vec<u8>, NsmError> {
        match nsm_process_request(self.device, Request::GetRandom) {
            Response::GetRandom { random } => Ok(random),
            other => Err(refusal("GetRandom", other)),
        }
    }

    fn describe(&self) -> Result<String, NsmError> {
        match nsm_process_request(self.device, Request::DescribeNSM) {
            Response::DescribeNSM { module_id, digest: Digest::SHA384, .. } => Ok(module_id),
            Response::DescribeNSM { digest, .. } => Err(NsmError::Digest(format!("{digest:?}"))),
            other => Err(refusal("DescribeNSM", other)),
        }
    }

    fn lock_pcrs(&self) -> Result<(), NsmError> {
        match nsm_process_request(self.device, Request::LockPCRs { range: PCRS }) {
            Response::LockPCRs => Ok(()),
            other => Err(refusal("LockPCRs", other)),
        }
    }
}

impl Attester for NitroSecureModule {
    fn module_id(&self) -> &str {
        &self.module_id
    }

    fn attest(&self, claims: &Claims<'_>) -> Result<Vec<u8>, AttestError> {
        let request = Request::Attestation {
            user_data: Some(claims.user_data.to_vec().into()),
            nonce: Some(claims.nonce.to_vec().into()),
            public_key: Some(claims.public_key.to_vec().into()),
        };
        match nsm_process_request(self.device, request) {
            Response::Attestation { document } => Ok(document),
            other => Err(AttestError(refusal("Attestation", other).to_string())),
        }
    }
}

impl Drop for NitroSecureModule {
    fn drop(&mut self) {
        nsm_exit(self.device);
    }
}

fn refusal(request: &'static str, response: Response) -> NsmError {
    match response {
        Response::Error(code) => NsmError::Refused { request, code },
        _ => NsmError::UnexpectedResponse { request },
    }
}

/// The Nitro Secure Module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsmError {
    /// There is no module: this is not a Nitro Enclave.
    #[error(
        "/dev/nsm cannot be opened: this program runs only inside a Nitro Enclave (use cloister-simulated-enclave elsewhere)"
    )]
    NoDevice,
    /// The PCR bank is not the one that policies are written in.
    #[error("the NSM's PCR bank is {0}, expected SHA384")]
    Digest(String),
    /// The module answered with an error code of the NSM API.
    #[error("the NSM refused {request}: {code:?}")]
    Refused {
        /// The request, by its name in the NSM API.
        request: &'static str,
        /// The module's reason.
        code: ErrorCode,
    },
    /// The module answered something else than what was asked for.
    #[error("the NSM answered {request} with another kind of response")]
    UnexpectedResponse {
        /// The request, by its name in the NSM API.
        request: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    #[test]
    fn outside_an_enclave_the_error_says_so() {
        if std::path::Path::new("/dev/nsm").exists() {
            io::stderr().write_all(b"SKIPPED: this machine has a /dev/nsm\n").unwrap();
            return;
        }
        assert!(matches!(NitroSecureModule::open(), Err(NsmError::NoDevice)));
    }

    #[test]
    fn an_error_code_is_passed_on_and_a_foreign_response_refused() {
        assert!(matches!(
            refusal("GetRandom", Response::Error(ErrorCode::InvalidOperation)),
            NsmError::Refused { request: "GetRandom", code: ErrorCode::InvalidOperation }
        ));
        assert!(matches!(refusal("LockPCRs", Response::LockPCR), NsmError::UnexpectedResponse { request: "LockPCRs" }));
    }
}
