//! The TOML of policies.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use serde::Deserialize;
use toml::{
    Value,
    de::{DeTable, DeValue},
    value::Datetime,
};

use super::{
    ChannelRule, Models, Pins, Policy, PolicyError, PolicyModel, Release,
    text::{check_name, is_visible},
};
use crate::{
    Root, Sha384, Timestamp,
    document::MAX_AGE,
    pcrs::{Pcr, ZERO},
};

/// More than a policy with a thousand releases has.
const MAX_TEXT: usize = 1 << 20;

/// The longest line of a message, in characters.
const MAX_LINE: usize = 200;

/// The one version so far.
const VERSION: i64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: i64,
    expires: Datetime,
    #[serde(default)]
    channel: FileChannel,
    max_age: Option<String>,
    root: Option<String>,
    #[serde(default, rename = "release")]
    releases: Vec<FileRelease>,
    #[serde(default, rename = "model")]
    models: Vec<FileModel>,
    #[serde(default)]
    pin: FilePins,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileChannel {
    #[default]
    Required,
    Optional,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRelease {
    name: String,
    pcr0: String,
    pcr1: String,
    pcr2: String,
    not_after: Option<Datetime>,
    revoked: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileModel {
    name: String,
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePins {
    pcr3: Option<String>,
    pcr4: Option<String>,
    pcr8: Option<String>,
    module_id: Option<String>,
    region: Option<String>,
}

pub(super) fn read_bytes(bytes: &[u8]) -> Result<Policy, PolicyError> {
    if bytes.len() > MAX_TEXT {
        return Err(PolicyError::TooLarge { limit: MAX_TEXT, actual: bytes.len() });
    }
    read(std::str::from_utf8(bytes).map_err(|error| PolicyError::NotUtf8 { offset: error.valid_up_to() })?)
}

pub(super) fn read(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > MAX_TEXT {
        return Err(PolicyError::TooLarge { limit: MAX_TEXT, actual: text.len() });
    }
    check_version(text)?;
    let file: File = toml::from_str(text).map_err(malformed)?;
    check_shapes(DeTable::parse(text).map_err(malformed)?.get_ref())?;
    let File { _version, expires, channel, max_age, root, releases, models, pin } = file;
    Ok(Policy {
        expires: timestamp("expires", expires)?,
        channel: match channel {
            FileChannel::Required => ChannelRule::Required,
            FileChannel::Optional => ChannelRule::Optional,
        },
        max_age: max_age.map_or(Ok(MAX_AGE), |text| duration(&text))?,
        root: root.map_or_else(|| Ok(Root::aws_nitro_g1()), |pem| Root::from_pem(&pem)).map_err(PolicyError::Root)?,
        releases: unique("release", releases, release, |release| &release.name)?,
        models: Models(unique("model", models, model, |model| &model.name)?),
        pins: pins(pin)?,
        source: Some(Sha384::of(text.as_bytes())),
    })
}

/// Before anything else, since a newer version may have keys that this one does not know.
fn check_version(text: &str) -> Result<(), PolicyError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: i64,
    }
    match toml::from_str(text).map_err(malformed)? {
        Versioned { version: VERSION } => Ok(()),
        Versioned { version } => Err(PolicyError::Newer { version }),
    }
}

/// Refuses what serde takes for something else than it looks like: a list for the table of these values, a table for a time or
/// for a word.
fn check_shapes(table: &DeTable<'_>) -> Result<(), PolicyError> {
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("release" | "model", DeValue::Array(entries)) => {
                entries.iter().try_for_each(|entry| match entry.get_ref() {
                    DeValue::Table(entry) => check_shapes(entry),
                    other => Err(misshapen(key.get_ref(), other)),
                })?
            }
            ("pin", DeValue::Table(_)) => {}
            (key, other @ (DeValue::Array(_) | DeValue::Table(_))) => return Err(misshapen(key, other)),
            _ => {}
        }
    }
    Ok(())
}

fn misshapen(key: &str, value: &DeValue<'_>) -> PolicyError {
    PolicyError::Malformed(format!("`{key}` cannot be a TOML {}", value.type_str()))
}

/// The reason quotes a line of the file, which must neither steer a terminal nor fill it.
fn malformed(error: toml::de::Error) -> PolicyError {
    let (text, reason) = (error.to_string(), error.message());
    let quote = text.trim_end().strip_suffix(reason).unwrap_or_default();
    let lines: Vec<String> = quote.lines().chain([reason]).map(shown).collect();
    PolicyError::Malformed(lines.join("\n"))
}

/// A line for a message, cut to a length that is read. What is not visible is replaced one for one: the line after a quotation
/// points at its columns.
fn shown(line: &str) -> String {
    let (start, rest) = line.split_at(line.char_indices().nth(MAX_LINE).map_or(line.len(), |(end, _)| end));
    let visible = start.chars().map(|c| if is_visible(c) { c } else { char::REPLACEMENT_CHARACTER });
    visible.chain((!rest.is_empty()).then_some('…')).collect()
}

fn timestamp(key: &str, datetime: Datetime) -> Result<Timestamp, PolicyError> {
    Timestamp::parse_rfc3339(&datetime.to_string()).map_err(|source| PolicyError::Time { key: key.to_owned(), source })
}

/// `5m` or `90s`, and nothing longer than five minutes.
fn duration(text: &str) -> Result<Duration, PolicyError> {
    let parse = || {
        let (count, unit) = match (text.strip_suffix('m'), text.strip_suffix('s')) {
            (Some(minutes), _) => (minutes, 60),
            (_, Some(seconds)) => (seconds, 1),
            _ => return None,
        };
        // `parse` takes a sign and zeros too.
        let plain = !count.starts_with('0') && count.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = count.parse::<u32>().ok().filter(|_| plain)?.checked_mul(unit)?;
        let duration = Duration::from_secs(seconds.into());
        (Duration::from_secs(1)..=MAX_AGE).contains(&duration).then_some(duration)
    };
    parse().ok_or_else(|| PolicyError::MaxAge { actual: text.to_owned() })
}

/// Converts entries, each name once.
fn unique<F, T>(
    what: &'static str,
    entries: Vec<F>,
    convert: fn(F) -> Result<T, PolicyError>,
    name: fn(&T) -> &str,
) -> Result<Vec<T>, PolicyError> {
    let entries: Vec<T> = entries.into_iter().map(convert).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    for entry in &entries {
        if !names.insert(name(entry)) {
            return Err(PolicyError::Duplicate { what, name: name(entry).to_owned() });
        }
    }
    Ok(entries)
}

fn release(file: FileRelease) -> Result<Release, PolicyError> {
    let FileRelease { name, pcr0, pcr1, pcr2, not_after, revoked } = file;
    check_name("release", &name)?;
    let pcr = |index: u8, text: &str| pcr(&format!("release `{name}`, pcr{index}"), text);
    let pcrs = [pcr(0, &pcr0)?, pcr(1, &pcr1)?, pcr(2, &pcr2)?];
    let key = format!("release `{name}`, not_after");
    let not_after = not_after.map(|datetime| timestamp(&key, datetime)).transpose()?;
    let release = Release { name: name.clone(), pcrs, not_after, revoked };
    release.check()?;
    Ok(release)
}

fn model(file: FileModel) -> Result<PolicyModel, PolicyError> {
    let FileModel { name, digest } = file;
    check_name("model", &name)?;
    match digest.parse() {
        Ok(digest) => Ok(PolicyModel { name, digest }),
        Err(source) => Err(PolicyError::Digest { model: name, source }),
    }
}

fn pins(file: FilePins) -> Result<Pins, PolicyError> {
    let FilePins { pcr3, pcr4, pcr8, module_id, region } = file;
    let pin = |key: &str, text: Option<String>| text.map(|text| pcr(key, &text)).transpose();
    let pins = Pins {
        pcr3: pin("pin.pcr3", pcr3)?,
        pcr4: pin("pin.pcr4", pcr4)?,
        pcr8: pin("pin.pcr8", pcr8)?,
        module_id,
        region,
    };
    pins.check()?;
    Ok(pins)
}

fn pcr(key: &str, text: &str) -> Result<Pcr, PolicyError> {
    let mut pcr = ZERO;
    let malformed = |_| PolicyError::Pcr { key: key.to_owned(), actual: text.to_owned() };
    hex::decode_to_slice(text, &mut pcr).map_err(malformed)?;
    Ok(pcr)
}

pub(super) fn write(policy: &Policy) -> String {
    let mut text = String::new();
    compose(&mut text, policy).expect("a String takes every text");
    text
}

fn compose(text: &mut String, policy: &Policy) -> std::fmt::Result {
    let Policy { expires, channel, max_age, root, releases, models, pins, source: _ } = policy;
    writeln!(
        text,
        "# Which enclaves and models are accepted. Review every line; whatever is not listed is refused.\n"
    )?;
    writeln!(text, "version = {VERSION}")?;
    writeln!(text, "expires = {expires}  # accepts nothing from then on: get the publisher's current policy")?;
    match channel {
        ChannelRule::Required => writeln!(text, "channel = \"required\"  # TLS ends in the enclave")?,
        ChannelRule::Optional => {
            writeln!(text, "channel = \"optional\"  # TLS may end before the enclave, if asked for")?
        }
    }
    if *max_age != MAX_AGE {
        writeln!(text, "max_age = \"{}s\"", max_age.as_secs())?;
    }
    if root.is_simulated() {
        writeln!(text, "# SIMULATED: not AWS's root. What this policy accepts protects nothing.")?;
        writeln!(text, "root = \"\"\"\n{}\"\"\"", root.to_pem())?;
    }
    releases.iter().try_for_each(|release| compose_release(text, release))?;
    for PolicyModel { name, digest } in models.0.iter() {
        writeln!(text, "\n[[model]]\nname = {}\ndigest = \"{digest}\"", quoted(name))?;
    }
    compose_pins(text, pins)
}

fn compose_release(text: &mut String, release: &Release) -> std::fmt::Result {
    let Release { name, pcrs, not_after, revoked } = release;
    let [pcr0, pcr1, pcr2] = pcrs.map(hex::encode);
    writeln!(text, "\n[[release]]\nname = {}", quoted(name))?;
    writeln!(text, "pcr0 = \"{pcr0}\"  # the whole image")?;
    writeln!(text, "pcr1 = \"{pcr1}\"  # kernel and program")?;
    writeln!(text, "pcr2 = \"{pcr2}\"  # models")?;
    if let Some(not_after) = not_after {
        writeln!(text, "not_after = {not_after}  # the last moment whose documents are accepted")?;
    }
    if let Some(reason) = revoked {
        writeln!(text, "revoked = {}  # refused always, stored answers too", quoted(reason))?;
    }
    Ok(())
}

fn compose_pins(text: &mut String, pins: &Pins) -> std::fmt::Result {
    if *pins == Pins::default() {
        return Ok(());
    }
    let Pins { pcr3, pcr4, pcr8, module_id, region } = pins;
    writeln!(text, "\n[pin]  # where and by whom the enclave is started")?;
    for (key, pin) in [("pcr3", pcr3), ("pcr4", pcr4), ("pcr8", pcr8)] {
        if let Some(pcr) = pin {
            writeln!(text, "{key} = \"{}\"", hex::encode(pcr))?;
        }
    }
    for (key, pin) in [("module_id", module_id), ("region", region)] {
        if let Some(pin) = pin {
            writeln!(text, "{key} = {}", quoted(pin))?;
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(digit: char) -> String {
        digit.to_string().repeat(96)
    }

    /// The example of the specification, complete.
    fn example() -> String {
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
revoked = "a \"bad\" build"
[[model]]
name = "iris"
digest = "sha384:{a}"
[pin]
pcr3 = "{c}"
module_id = "i-1-enc2"
region = "eu-west-1"
"#,
            a = digits('a'),
            b = digits('b'),
            c = digits('c')
        )
    }

    fn refused(text: &str) -> PolicyError {
        read(text).map(|_| ()).unwrap_err()
    }

    #[test]
    fn the_example_is_read() {
        let policy = read(&example()).unwrap();
        assert_eq!(policy.expires().to_string(), "2027-02-01T00:00:00Z");
        assert_eq!(policy.channel(), ChannelRule::Optional);
        assert_eq!(policy.max_age(), Duration::from_secs(90));
        assert!(!policy.root().is_simulated());
        let [current, revoked] = policy.releases() else { panic!("two releases") };
        assert_eq!(current.pcrs[2], [0xcc; 48]);
        assert_eq!(current.not_after.unwrap().to_string(), "2026-12-31T00:00:00Z");
        assert_eq!((revoked.name.as_str(), revoked.revoked.as_deref()), ("1.1.0", Some("a \"bad\" build")));
        assert_eq!(policy.models(), [PolicyModel { name: "iris".to_owned(), digest: Sha384([0xaa; 48]) }]);
        assert_eq!(policy.pins().pcr3, Some([0xcc; 48]));
        assert_eq!(policy.pins().region.as_deref(), Some("eu-west-1"));
        assert_eq!(policy.digest(), Sha384::of(example().as_bytes()));
    }

    #[test]
    fn what_is_written_is_read_and_written_again() {
        let policy = read(&example()).unwrap();
        let text = policy.to_toml();
        let again = read(&text).unwrap();
        assert_eq!(again.to_toml(), text);
        assert_eq!(again.releases(), policy.releases());
        assert_eq!(again.models(), policy.models());
        assert_eq!(again.pins(), policy.pins());
        assert_eq!((again.channel(), again.max_age()), (policy.channel(), policy.max_age()));
    }

    #[test]
    fn defaults_are_strict() {
        let policy = read("version = 1\nexpires = 2027-02-01T00:00:00Z\n").unwrap();
        assert_eq!(policy.channel(), ChannelRule::Required);
        assert_eq!(policy.max_age(), MAX_AGE);
        assert_eq!(policy.root(), &Root::aws_nitro_g1());
        assert!(policy.releases().is_empty() && policy.models().is_empty());
    }

    #[test]
    fn a_change_changes_the_digest() {
        let mut policy = read(&example()).unwrap();
        policy.revoke("1.2.0", "reason").unwrap();
        assert_eq!(policy.digest(), Sha384::of(policy.to_toml().as_bytes()));
    }

    #[test]
    fn unknown_and_missing_keys_are_errors() {
        let unknown = [
            example().replace("max_age", "maxage"),
            example().replace("not_after", "notafter"),
            example().replace("region", "regoin"),
            example().replace("[[release]]", "[[releases]]"),
            example().replace("digest =", "sha384 ="),
        ];
        for text in unknown {
            assert!(matches!(refused(&text), PolicyError::Malformed(_)), "{text}");
        }
        for key in ["version", "expires", "pcr0", "pcr1", "pcr2", "digest"] {
            let text: String = example()
                .lines()
                .filter(|line| !line.starts_with(key))
                .fold(String::new(), |text, line| text + line + "\n");
            assert!(matches!(refused(&text), PolicyError::Malformed(reason) if reason.contains(key)), "{key}");
        }
        for text in ["", "version", "version = \"1\""] {
            assert!(matches!(refused(text), PolicyError::Malformed(_)), "{text}");
        }
    }

    #[test]
    fn a_newer_version_is_named_before_its_unknown_keys() {
        assert_eq!(refused("version = 2\nnew = 1"), PolicyError::Newer { version: 2 });
    }

    #[test]
    fn every_value_is_checked() {
        let (a, c, zeros) = (digits('a'), digits('c'), digits('0'));
        let cases = [
            ("2027-02-01T00:00:00Z", "2027-02-01T00:00:00", "policy_time"),
            ("2027-02-01T00:00:00Z", "2027-02-01", "policy_time"),
            ("\"90s\"", "\"301s\"", "policy_max_age"),
            ("\"90s\"", "\"6m\"", "policy_max_age"),
            ("\"90s\"", "\"0s\"", "policy_max_age"),
            ("\"90s\"", "\"-1s\"", "policy_max_age"),
            ("\"90s\"", "\"+5m\"", "policy_max_age"),
            ("\"90s\"", "\"005m\"", "policy_max_age"),
            ("\"90s\"", "\"m\"", "policy_max_age"),
            ("\"90s\"", "\"1 m\"", "policy_max_age"),
            ("\"90s\"", "\"forever\"", "policy_max_age"),
            ("max_age = \"90s\"", "root = \"none\"", "policy_root"),
            (&format!("pcr0 = \"{a}\""), &format!("pcr0 = \"{zeros}\""), "policy_zero_pcr"),
            (&format!("pcr0 = \"{a}\""), "pcr0 = \"\"", "policy_pcr"),
            (&format!("sha384:{a}"), &a, "policy_digest"),
            ("name = \"1.1.0\"", "name = \"1.2.0\"", "policy_duplicate"),
            ("name = \"iris\"", "name = \"\"", "policy_empty_name"),
            ("name = \"iris\"", "name = \"iris\\n\"", "policy_unprintable"),
            ("name = \"1.1.0\"", "name = \"1.1.0\\u202e\"", "policy_unprintable"),
            ("\"a \\\"bad\\\" build\"", "\"bad\\r\"", "policy_unprintable"),
            ("name = \"iris\"", &format!("name = \"{}\"", "i".repeat(129)), "policy_text_too_long"),
            (&format!("pcr3 = \"{c}\""), &format!("pcr3 = \"{zeros}\""), "policy_zero_pin"),
            (&format!("pcr3 = \"{c}\""), "pcr3 = \"\"", "policy_pcr"),
            ("module_id = \"i-1-enc2\"", "module_id = \"\"", "policy_empty_name"),
            ("channel = \"optional\"", "channel = \"none\"", "bad_policy"),
            ("channel = \"optional\"", "channel = \"optional\"\nchannel = \"required\"", "bad_policy"),
            ("name = \"1.2.0\"", "name = \"1.2.0\"\nname = \"1.2.0\"", "bad_policy"),
            ("[pin]", "[pin]\npcr5 = \"\"", "bad_policy"),
            ("[pin]", "[[pin]]", "bad_policy"),
        ];
        for (from, to, code) in cases {
            let text = example().replacen(from, to, 1);
            assert_ne!(text, example(), "{from}");
            assert_eq!(refused(&text).code(), code, "{to}");
        }
        let long = example() + &"#".repeat(MAX_TEXT);
        assert_eq!(read_bytes(long.as_bytes()).map(|_| ()).unwrap_err().code(), "policy_too_large");
        assert_eq!(refused(&long).code(), "policy_too_large");
    }

    #[test]
    fn values_are_what_they_look_like() {
        let (a, b, c) = (digits('a'), digits('b'), digits('c'));
        let head = "version = 1\nexpires = 2027-02-01T00:00:00Z\n";
        let odd = [
            (format!("{head}channel = {{ optional = {{}} }}"), "channel", "table"),
            (format!("{head}[channel]\noptional = {{}}"), "channel", "table"),
            (
                "version = 1\nexpires = { \"$__toml_private_datetime\" = \"2027-02-01T00:00:00Z\" }".to_owned(),
                "expires",
                "table",
            ),
            (
                example().replace(
                    "2026-12-31T01:00:00+01:00",
                    "{ \"\\u0024__toml_private_datetime\" = \"2026-12-31T01:00:00Z\" }",
                ),
                "not_after",
                "table",
            ),
            (format!("{head}model = [[\"iris\", \"sha384:{a}\"]]"), "model", "array"),
            (
                format!("{head}release = [[\"1.0\", \"{a}\", \"{b}\", \"{c}\", 2026-12-31T00:00:00Z, \"leaks\"]]"),
                "release",
                "array",
            ),
            (format!("{head}pin = [\"{a}\", \"{b}\", \"{c}\", \"i-1-enc2\", \"eu-west-1\"]"), "pin", "array"),
        ];
        for (text, key, shape) in odd {
            toml::from_str::<File>(&text).expect("serde takes it");
            let expected = format!("`{key}` cannot be a TOML {shape}");
            assert_eq!(refused(&text), PolicyError::Malformed(expected), "{text}");
        }
        let inline =
            format!("{head}model = [{{ name = \"iris\", digest = \"sha384:{a}\" }}]\npin = {{ pcr3 = \"{a}\" }}");
        assert_eq!(read(&inline).unwrap().models().len(), 1, "tables may be written in a line");
    }

    #[test]
    fn a_refusal_quotes_a_few_short_lines() {
        let long = "x".repeat(MAX_TEXT / 2);
        let texts = [
            format!("version = 1 # {long}\nversion = 1 # {long}"),
            format!("version = 1\n{long} = 1"),
            format!("version = 1\n\"{long}\" = 1"),
            format!("version = 1\nexpires = \"{long}\""),
            format!("version = \"{long}\""),
            example().replace("90s", &long),
            example().replace("optional", &long),
            example().replace("1.2.0", &long),
            example().replace(&digits('a'), &long),
            example().replace(&format!("sha384:{}", digits('a')), &long),
            example().replace("max_age = \"90s\"", &format!("root = \"{long}\"")),
            example().replace("a \\\"bad\\\" build", &long),
            example().replace("eu-west-1", &long),
        ];
        for text in texts {
            let told = refused(&text).to_string();
            assert!(told.chars().count() < 1000 && told.lines().count() <= 6, "{told}");
        }
        let told = refused("version = 1\n\"a\\nb\\u202Ec\" = 1").to_string();
        assert!(told.contains("unknown field `a\u{fffd}b\u{fffd}c`"), "{told}");
        let told = refused("version = 1\nsurprise = 1 # \u{61c}").to_string();
        assert!(told.contains("\n2 | surprise = 1 # \u{fffd}\n  | ^^^^^^^^\nunknown field"), "{told}");
    }

    #[test]
    fn times_have_their_offset_and_are_never_later_than_written() {
        let expires = |text: &str| read(&format!("version = 1\nexpires = {text}\n")).map(|policy| policy.expires());
        let written = |text: &str| expires(text).unwrap().to_string();
        assert_eq!(written("2027-02-01T00:00:00+14:00"), "2027-01-31T10:00:00Z");
        assert_eq!(written("2027-02-01 00:00:00-00:30"), "2027-02-01T00:30:00Z");
        assert_eq!(written("2027-02-01t00:00:00.9999z"), "2027-02-01T00:00:00.999Z");
        assert_eq!(written("9999-12-31T23:59:59Z"), "9999-12-31T23:59:59Z");
        assert_eq!(written("2026-12-31T23:59:60Z"), "2026-12-31T23:59:59.999Z", "a leap second");
        for text in [
            "2026-06-15T12:00:60Z",
            "2027-02-30T00:00:00Z",
            "2027-02-01T24:00:00Z",
            "2027-02-01T00:00:00+24:00",
            "10000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "\"2027-02-01T00:00:00Z\"",
            "1801440000",
        ] {
            assert!(matches!(expires(text), Err(PolicyError::Time { .. } | PolicyError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn hexadecimal_is_read_in_either_case_and_written_in_one() {
        let upper = example().replace(&digits('a'), &digits('A'));
        assert_eq!(read(&upper).unwrap().to_toml(), read(&example()).unwrap().to_toml());
        assert_eq!(read(&upper).unwrap().releases(), read(&example()).unwrap().releases());
    }

    #[test]
    fn files_of_other_systems_are_read_or_named() {
        let crlf = example().replace('\n', "\r\n");
        assert_eq!(read_bytes(crlf.as_bytes()).unwrap().to_toml(), read(&example()).unwrap().to_toml());
        let marked = format!("\u{feff}{}", example());
        assert_eq!(read_bytes(marked.as_bytes()).unwrap().to_toml(), read(&example()).unwrap().to_toml());

        let utf16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read_bytes(&utf16).map(|_| ()), Err(PolicyError::NotUtf8 { offset: 0 }));
        let latin1 = [example().as_bytes(), b"# gr\xf6\xdfer"].concat();
        let offset = example().len() + 4;
        assert_eq!(read_bytes(&latin1).map(|_| ()), Err(PolicyError::NotUtf8 { offset }));
        assert_eq!(read_bytes(b"").map(|_| ()).unwrap_err().code(), "bad_policy");
    }
}
