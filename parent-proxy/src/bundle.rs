//! What a bundle says of itself. Only an enclave judges it; this is read to know what it would take the place of.

use aws_lc_rs::digest::{SHA384, digest};
use ciborium::Value;
use serde::Deserialize;

/// The digest of a bundle, as enclaves write it.
pub(crate) fn digest_of(bundle: &[u8]) -> String {
    format!("sha384:{}", hex::encode(digest(&SHA384, bundle)))
}

/// The name and the version of a bundle, unless it is none that an enclave takes.
pub(crate) fn name_and_version(bundle: &[u8]) -> Option<(String, String)> {
    let Bundle { description } = ciborium::from_reader(bundle).ok()?;
    let Description { name, version } = ciborium::from_reader(description.as_bytes()?.as_slice()).ok()?;
    Some((name, version))
}

/// Of the weights and all else nothing is kept.
#[derive(Deserialize)]
struct Bundle {
    description: Value,
}

#[derive(Deserialize)]
struct Description {
    name: String,
    version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cbor(fields: &[(&str, Value)]) -> Vec<u8> {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(fields), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_bundle_is_known_by_its_description() {
        let description = cbor(&[("name", "iris".into()), ("logits", 3.into()), ("version", "2".into())]);
        let weights = Value::Array(vec![Value::Array(vec![1.into(), 2.into()])]);
        let bundle = cbor(&[("v", 1.into()), ("weights", weights), ("description", description.into())]);
        assert_eq!(name_and_version(&bundle), Some(("iris".into(), "2".into())));
        for faulty in [&b""[..], b"rubbish", &bundle[..bundle.len() - 1], &cbor(&[("description", 1.into())])] {
            assert_eq!(name_and_version(faulty), None);
        }
    }

    #[test]
    fn a_digest_is_written_as_enclaves_do() {
        // FIPS 180-4's example of one block.
        let expected = "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                        8086072ba1e7cc2358baeca134c825a7";
        assert_eq!(digest_of(b"abc"), expected);
    }
}
