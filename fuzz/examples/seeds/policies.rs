//! Policy files.

use crate::{Corpus, signed::Enclave};

pub(crate) fn write(enclave: &Enclave) {
    let corpus = Corpus::new("policy");
    corpus.valid("world", enclave.policy().to_toml());
    corpus.valid("empty", "version = 1\nexpires = 2027-02-01T00:00:00Z\n");
    let complete = complete();
    corpus.valid("complete", &complete);
    corpus.valid("quotes", complete.replace("reason", r#"\u0027''\"\"\" \\u0000 größer"#));
    corpus.refused("policy_unprintable", complete.replace("reason", r"\u001b[2J"));
    corpus.refused("policy_text_too_long", complete.replace("reason", &"x".repeat(1001)));
    corpus.valid("last-moment", complete.replace("2027-02-01T00:00:00Z", "9999-12-31T23:59:59.999Z"));

    for (code, from, to) in REFUSED {
        let text = complete.replacen(from, to, 1);
        assert_ne!(text, complete, "{code}: {from} is not there");
        corpus.refused(code, text);
    }
    corpus.refused("bad_policy-nothing", "");
    corpus.refused("bad_policy-escape", complete.replace("version = 1", "version = 1 # \u{1b}[2J"));
    corpus.refused("policy_zero_pcr", complete.replace(&"a".repeat(96), &"0".repeat(96)));
    corpus.refused("policy_not_utf8", b"version = 1\xff");
}

/// One of every key.
fn complete() -> String {
    let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(96));
    format!(
        r#"version = 1
expires = 2027-02-01T00:00:00Z
channel = "optional"
max_age = "90s"
[[release]]
name = "1.2.0"
pcr0 = "{a}"
pcr1 = "{b}"
pcr2 = "{c}"
not_after = 2026-12-31T01:00:00+01:00
[[release]]
name = "1.1.0"
pcr0 = "{b}"
pcr1 = "{b}"
pcr2 = "{c}"
revoked = "reason"
[[model]]
name = "iris"
digest = "sha384:{a}"
[pin]
pcr3 = "{a}"
pcr4 = "{b}"
pcr8 = "{c}"
module_id = "i-1-enc2"
region = "eu-west-1"
"#
    )
}

/// The code, and the change for which it is given.
const REFUSED: [(&str, &str, &str); 20] = [
    ("newer_version", "version = 1", "version = 2\nnew = 1"),
    ("bad_policy-no-version", "version = 1", ""),
    ("bad_policy-unknown-key", "region =", "regoin ="),
    ("bad_policy-channel", "\"optional\"", "\"none\""),
    ("policy_time-no-offset", "2027-02-01T00:00:00Z", "2027-02-01T00:00:00"),
    ("policy_time-no-time", "2027-02-01T00:00:00Z", "2027-02-01"),
    ("policy_time-beyond-9999", "2027-02-01T00:00:00Z", "9999-12-31T23:59:00-00:59"),
    ("policy_max_age", "90s", "301s"),
    ("policy_root", "max_age = \"90s\"", "root = \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\""),
    ("policy_pcr", "pcr1 = \"b", "pcr1 = \""),
    ("policy_pcr-escape", "pcr1 = \"b", "pcr1 = \"\\u001b"),
    ("policy_unprintable-model", "name = \"iris\"", "name = \"\\u001b\""),
    ("policy_max_age-escape", "90s", "\\u001bs"),
    ("policy_max_age-sign", "90s", "+90s"),
    ("bad_policy-channel-table", "\"optional\"", "{ optional = {} }"),
    ("bad_policy-time-table", "2027-02-01T00:00:00Z", r#"{ "$__toml_private_datetime" = "2027-02-01T00:00:00Z" }"#),
    ("policy_digest", "sha384:", "sha256:"),
    ("policy_duplicate", "1.1.0", "1.2.0"),
    ("policy_empty_name-release", "name = \"1.1.0\"", "name = \"\""),
    ("policy_empty_name-model", "name = \"iris\"", "name = \"\""),
];
