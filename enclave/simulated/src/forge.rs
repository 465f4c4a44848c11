//! Documents that are wrong in exactly one way, for tests of verifiers.
//!
//! A [`Forge`] makes a valid document. Each method changes one thing *before* it is covered by the signature above it, so
//! that only the check under test can refuse the result; [`elements`](Forge::elements) changes it afterwards.
//!
//! ```
//! use cloister_attestation::{At, Refusal, Timestamp, UnverifiedDocument, VerificationError};
//! use cloister_simulated_enclave::{Authority, Identity, forge::Forge};
//!
//! let authority = Authority::ephemeral();
//! let document = Forge::new(&authority, Identity::random(), Timestamp::now()).pcr(1, Some([0; 48])).build();
//! let refused = UnverifiedDocument::parse(&document)?.authenticate(&authority.root(), At::document()).unwrap_err();
//! assert_eq!(*refused.error, VerificationError::DebugMode { index: 1 });
//! # Ok::<(), Refusal>(())
//! ```

use cloister_attestation::{Link, Timestamp};
use rcgen::PKCS_ECDSA_P256_SHA256;
pub use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, IsCa, KeyUsagePurpose};

use crate::{
    Authority, Identity,
    chain::{Chain, Templates, date},
    document::{Envelope, Fields, array},
};

pub use crate::document::Payload;

/// Puts a document together; `'a` is that of the changes.
pub struct Forge<'a> {
    authority: Authority,
    identity: Identity,
    now: Timestamp,
    templates: Templates,
    fields: Fields,
    chain: Vec<Edit<'a, Certificates>>,
    payload: Vec<Edit<'a, Payload>>,
    protected: Option<Vec<u8>>,
    elements: Vec<Edit<'a, Vec<Vec<u8>>>>,
}

type Edit<'a, T> = Box<dyn FnOnce(&mut T) + 'a>;

/// The certificates of a document, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// From the root to the instance's authority.
    pub cabundle: Vec<Vec<u8>>,
    /// The leaf.
    pub certificate: Vec<u8>,
}

impl<'a> Forge<'a> {
    /// A valid document of `identity`, made at `now` and without nonce, public key and user data.
    pub fn new(authority: &Authority, identity: Identity, now: Timestamp) -> Self {
        Self {
            authority: authority.clone(),
            templates: Templates::new(&identity, now),
            identity,
            now,
            fields: Fields::default(),
            chain: Vec::new(),
            payload: Vec::new(),
            protected: None,
            elements: Vec::new(),
        }
    }

    /// With these fields, which no NSM would refuse or add to.
    pub fn fields(mut self, nonce: &[u8], public_key: &[u8], user_data: &[u8]) -> Self {
        let [nonce, public_key, user_data] = [nonce, public_key, user_data].map(|field| Some(field.to_vec()));
        self.fields = Fields { nonce, public_key, user_data };
        self
    }

    /// With another register, or without it.
    pub fn pcr(mut self, index: u8, value: Option<[u8; 48]>) -> Self {
        match value {
            Some(value) => self.identity.pcrs.insert(index, value),
            None => self.identity.pcrs.remove(&index),
        };
        self
    }

    /// Changes a certificate before it is issued. There is none for the root.
    pub fn certificate(mut self, link: Link, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        edit(&mut self.templates.get_mut(link).expect("the root is the authority's").params);
        self
    }

    /// Changes the validity of a certificate before it is issued.
    pub fn validity(self, link: Link, not_before: Timestamp, not_after: Timestamp) -> Self {
        self.certificate(link, |params| {
            params.not_before = date(not_before);
            params.not_after = date(not_after);
        })
    }

    /// Gives a certificate authority a P-256 key, with which it then signs.
    pub fn p256(mut self, link: Link) -> Self {
        self.templates.get_mut(link).expect("the root is the authority's").algorithm = &PKCS_ECDSA_P256_SHA256;
        self
    }

    /// Changes the certificates after they were issued, before the document is signed.
    pub fn certificates(mut self, edit: impl FnOnce(&mut Certificates) + 'a) -> Self {
        self.chain.push(Box::new(edit));
        self
    }

    /// Changes the payload before it is signed.
    pub fn payload(mut self, edit: impl FnOnce(&mut Payload) + 'a) -> Self {
        self.payload.push(Box::new(edit));
        self
    }

    /// With another protected header, which is signed.
    pub fn protected(mut self, header: &[u8]) -> Self {
        self.protected = Some(header.to_vec());
        self
    }

    /// Changes the encoded elements of the COSE_Sign1 after it was signed: protected and unprotected header, payload and
    /// signature.
    pub fn elements(mut self, edit: impl FnOnce(&mut Vec<Vec<u8>>) + 'a) -> Self {
        self.elements.push(Box::new(edit));
        self
    }

    /// The document.
    ///
    /// # Panics
    ///
    /// If a certificate cannot be issued as demanded.
    pub fn build(self) -> Vec<u8> {
        let Self { authority, identity, now, templates, fields, chain: edits, payload, protected, elements } = self;
        let mut chain = Chain::issue(&authority, templates).expect("the certificates can be issued");
        let Chain { cabundle, certificate, .. } = &mut chain;
        let mut certificates = Certificates { cabundle: cabundle.clone(), certificate: certificate.clone() };
        apply(edits, &mut certificates);
        (*cabundle, *certificate) = (certificates.cabundle, certificates.certificate);

        let mut document = Payload::new(&identity, &chain, fields, now);
        apply(payload, &mut document);
        let mut envelope = Envelope::new(&document);
        if let Some(protected) = protected {
            envelope.protected = protected;
        }
        let mut signed = envelope.sign(&chain);
        apply(elements, &mut signed);
        array(&signed)
    }
}

fn apply<T>(edits: Vec<Edit<'_, T>>, value: &mut T) {
    for edit in edits {
        edit(value);
    }
}
