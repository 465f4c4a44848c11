//! Path validation (RFC 5280 §6) from the leaf to the root.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs::ECDSA_P384_SHA384};

use crate::{Root, VerificationError, payload::Payload};

/// The authorities between root and leaf.
const INTERMEDIATES: usize = 3;

/// 5.2: validates the chain of `payload` at the document's own time, with ECDSA P-384 and SHA-384 only.
///
/// A later step ties that time to the verifier's clock, so a certificate is never further from its validity than the
/// document may be from now. Validity was looked at before, where the root's counts too: a trust anchor has none here.
pub(crate) fn verify(payload: &Payload, root: &Root) -> Result<(), VerificationError> {
    let broken = |error: webpki::Error| VerificationError::Chain { reason: format!("{error:?}") };
    let anchors = [webpki::anchor_from_trusted_cert(root.certificate()).map_err(broken)?];
    let (_root, authorities) = payload.cabundle.split_at(1);
    let authorities: Vec<_> = authorities.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = CertificateDer::from(payload.certificate.as_slice());
    let leaf = EndEntityCert::try_from(&leaf).map_err(broken)?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(payload.timestamp.millis()));
    let path = leaf
        .verify_for_usage(
            &[ECDSA_P384_SHA384],
            &anchors,
            &authorities,
            at,
            // Required only if present: the leaf has no extended key usage. Its key usage was checked with its profile.
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(broken)?;
    match path.intermediate_certificates().count() {
        INTERMEDIATES => Ok(()),
        used => {
            Err(VerificationError::Chain { reason: format!("the path uses {used} of {INTERMEDIATES} authorities") })
        }
    }
}
