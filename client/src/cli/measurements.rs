//! Measurements of an image: `measurements.json`, and what nitro-cli prints.
//!
//! `build-enclave` prints lines for people and then `{"Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": …}}`;
//! `describe-eif` the same object with more keys; `describe-enclaves` an array of such objects, one per running enclave.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{failure::Failure, files, output::foreign};

/// Far more than nitro-cli prints, builds of containers included.
const MAX_TEXT: usize = 1 << 20;

/// PCR0, 1 and 2.
pub(crate) type Pcrs = [[u8; 48]; 3];

/// Reads the measurements in a file.
pub(crate) fn read(path: &Path) -> Result<Pcrs, Failure> {
    parse(&files::read(path)?)
        .map_err(|error| Failure::bad_input(error.code(), format!("{}: {error}", path.display()), error.remedy()))
}

fn parse(bytes: &[u8]) -> Result<Pcrs, MeasurementsError> {
    if bytes.len() > MAX_TEXT {
        return Err(MeasurementsError::TooLarge { limit: MAX_TEXT, actual: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| MeasurementsError::NotUtf8)?;
    let text = after_progress(text.trim_start_matches('\u{feff}'));
    let Unique(json) =
        serde_json::from_str(text).map_err(|error| MeasurementsError::Json(foreign(&error.to_string())))?;
    match json {
        Value::Array(enclaves) => of_enclaves(&enclaves),
        image => of_image(&image),
    }
}

/// What follows the lines in which `build-enclave` tells people how far it is.
fn after_progress(text: &str) -> &str {
    if text.trim_start().starts_with(['{', '[']) {
        return text;
    }
    text.find("\n{").map_or(text, |line| &text[line + 1..])
}

/// Of `describe-enclaves`: all of them have to be the same image.
fn of_enclaves(enclaves: &[Value]) -> Result<Pcrs, MeasurementsError> {
    let (first, others) = enclaves.split_first().ok_or(MeasurementsError::NoEnclave)?;
    let pcrs = of_image(first)?;
    for other in others {
        if of_image(other)? != pcrs {
            return Err(MeasurementsError::DifferentEnclaves);
        }
    }
    Ok(pcrs)
}

fn of_image(image: &Value) -> Result<Pcrs, MeasurementsError> {
    // AWS's documentation calls the other value Debug, nitro-cli writes DEBUG_MODE.
    if let Some(flags) = image.get("Flags").filter(|flags| flags.as_str() != Some("NONE")) {
        return Err(MeasurementsError::DebugMode { flags: foreign(&flags.to_string()) });
    }
    if image.get("CheckCRC") == Some(&Value::Bool(false)) {
        return Err(MeasurementsError::BadChecksum);
    }
    let measurements = image.get("Measurements").and_then(Value::as_object).ok_or(MeasurementsError::NoMeasurements)?;
    check_algorithm(measurements)?;
    Ok([pcr(measurements, "PCR0")?, pcr(measurements, "PCR1")?, pcr(measurements, "PCR2")?])
}

/// `Sha384 { ... }`, as Rust's `Debug` wrote it once and nitro-cli does since.
fn check_algorithm(measurements: &Map<String, Value>) -> Result<(), MeasurementsError> {
    match measurements.get("HashAlgorithm") {
        None => Ok(()),
        Some(Value::String(name)) if name.split(' ').next() == Some("Sha384") => Ok(()),
        Some(other) => Err(MeasurementsError::HashAlgorithm { actual: foreign(&other.to_string()) }),
    }
}

fn pcr(measurements: &Map<String, Value>, key: &'static str) -> Result<[u8; 48], MeasurementsError> {
    let value = measurements.get(key).ok_or(MeasurementsError::MissingPcr { key })?;
    let mut pcr = [0; 48];
    match value.as_str().map(|text| hex::decode_to_slice(text, &mut pcr)) {
        Some(Ok(())) if pcr == [0; 48] => Err(MeasurementsError::ZeroPcr { key }),
        Some(Ok(())) => Ok(pcr),
        _ => Err(MeasurementsError::Pcr { key, actual: foreign(&value.to_string()) }),
    }
}

/// JSON in which no key occurs twice: of two equal keys, everybody would read another one.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, _>()? {
            if object.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("the key {key:?} occurs twice")));
            }
        }
        Ok(Unique(object.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Unique, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(value)) = sequence.next_element()? {
            array.push(value);
        }
        Ok(Unique(array.into()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Unique, E> {
        Ok(Unique(text.into()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }
}

/// A file does not tell the measurements of an image.
#[derive(Debug, thiserror::Error)]
enum MeasurementsError {
    #[error("it has {actual} bytes, at most {limit} are allowed")]
    TooLarge { limit: usize, actual: usize },
    #[error("it is not UTF-8 text")]
    NotUtf8,
    #[error("it has no JSON that can be read: {0}")]
    Json(String),
    #[error("it lists no running enclave")]
    NoEnclave,
    #[error("it lists enclaves with different measurements")]
    DifferentEnclaves,
    #[error(
        "the enclave runs with the flags {flags}, not \"NONE\": in debug mode its documents have zeros for measurements"
    )]
    DebugMode { flags: String },
    #[error("the image file is damaged: its checksum is wrong (CheckCRC is false)")]
    BadChecksum,
    #[error("it has no object \"Measurements\"")]
    NoMeasurements,
    #[error("HashAlgorithm is {actual}, expected \"Sha384 {{ ... }}\"")]
    HashAlgorithm { actual: String },
    #[error("{key} is missing")]
    MissingPcr { key: &'static str },
    #[error("{key} is {actual}, expected 96 hexadecimal digits")]
    Pcr { key: &'static str, actual: String },
    #[error("{key} is all zeros, which is what an enclave in debug mode shows")]
    ZeroPcr { key: &'static str },
}

impl MeasurementsError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "measurements_too_large",
            Self::NotUtf8 => "measurements_not_utf8",
            Self::Json(_) => "bad_measurements",
            Self::NoEnclave => "measurements_no_enclave",
            Self::DifferentEnclaves => "measurements_differ",
            Self::DebugMode { .. } => "measurements_debug_mode",
            Self::BadChecksum => "measurements_bad_checksum",
            Self::NoMeasurements => "no_measurements",
            Self::HashAlgorithm { .. } => "measurements_hash_algorithm",
            Self::MissingPcr { .. } => "measurements_missing_pcr",
            Self::Pcr { .. } => "measurements_bad_pcr",
            Self::ZeroPcr { .. } => "measurements_zero_pcr",
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::DebugMode { .. } | Self::ZeroPcr { .. } => {
                "Take the measurements of the image, not of an enclave in debug mode: the publisher's measurements.json, or \
                 what `nitro-cli describe-eif --eif-path FILE` prints."
            }
            Self::BadChecksum => "Get the image again, or build it again.",
            Self::NoEnclave | Self::DifferentEnclaves => {
                "Take the measurements of one image: the publisher's measurements.json, or what `nitro-cli describe-eif \
                 --eif-path FILE` prints."
            }
            _ => {
                "Give measurements.json of the release, or what nitro-cli build-enclave, describe-eif or describe-enclaves \
                 prints. It has the form {\"Measurements\": {\"HashAlgorithm\": \"Sha384 { ... }\", \"PCR0\": \"…\", \"PCR1\": \"…\", \"PCR2\": \"…\"}}."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(digit: char) -> String {
        digit.to_string().repeat(96)
    }

    fn inner() -> String {
        let (a, b, c) = (digits('a'), digits('B'), digits('c'));
        format!(
            r#""Measurements": {{ "HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{a}", "PCR1": "{b}", "PCR2": "{c}" }}"#
        )
    }

    fn refused(text: &str) -> &'static str {
        parse(text.as_bytes()).unwrap_err().code()
    }

    #[test]
    fn every_form_that_nitro_cli_prints_is_read() {
        let inner = inner();
        let image = format!("{{ {inner} }}\n");
        let built = format!(
            "Start building the Enclave Image...\nUsing the locally available Docker image...\n\
             Enclave Image successfully created.\n{image}"
        );
        let docker = format!("[+] Building 0.1s (5/5)\nStep 1/2 : FROM scratch\n ---> {{}}\n{image}");
        let described = format!(
            r#"{{ "EifVersion": 4, {inner}, "IsSigned": false, "CheckCRC": true, "ImageName": null, "Metadata": {{}} }}"#
        );
        let enclave = format!(r#"{{ "EnclaveID": "i-1-enc2", "CPUIDs": [1, 3], "Flags": "NONE", {inner} }}"#);
        let running = format!("[ {enclave}, {enclave} ]");
        let crlf = built.replace('\n', "\r\n");
        for text in [&image, &built, &described, &running, &crlf, &format!("\u{feff}{image}")] {
            assert_eq!(parse(text.as_bytes()).unwrap(), [[0xaa; 48], [0xbb; 48], [0xcc; 48]], "{text}");
        }
        assert_eq!(refused(&docker), "bad_measurements", "what begins like JSON has to be JSON");
    }

    #[test]
    fn everything_else_has_an_error_of_its_own() {
        let (inner, a) = (inner(), digits('a'));
        let image = format!("{{ {inner} }}");
        let zeros = digits('0');
        let cases = [
            ("", "bad_measurements"),
            ("Start building the Enclave Image...", "bad_measurements"),
            (&format!("{image} {image}"), "bad_measurements"),
            (&image.replace("PCR1", "PCR0"), "bad_measurements"),
            (&format!("{{ {inner}, {inner} }}"), "bad_measurements"),
            ("[]", "measurements_no_enclave"),
            ("{}", "no_measurements"),
            ("null", "no_measurements"),
            ("[1]", "no_measurements"),
            (&format!("[ {image}, {} ]", image.replace(&a, &digits('d'))), "measurements_differ"),
            (&format!(r#"[ {{ "Flags": "DEBUG_MODE", {inner} }} ]"#), "measurements_debug_mode"),
            (&format!(r#"[ {image}, {{ "Flags": "Debug", {inner} }} ]"#), "measurements_debug_mode"),
            (&format!(r#"{{ "CheckCRC": false, {inner} }}"#), "measurements_bad_checksum"),
            (&image.replace("Sha384 {", "Sha512 {"), "measurements_hash_algorithm"),
            (&image.replace("Sha384 {", "Sha3843 {"), "measurements_hash_algorithm"),
            (&image.replace("PCR2", "PCR3"), "measurements_missing_pcr"),
            (&image.replace(&a, &a[..94]), "measurements_bad_pcr"),
            (&image.replace(&a, &format!("{a}aa")), "measurements_bad_pcr"),
            (&image.replace(&a, &digits('g')), "measurements_bad_pcr"),
            (&image.replace(&format!("\"{a}\""), "17"), "measurements_bad_pcr"),
            (&image.replace(&a, &zeros), "measurements_zero_pcr"),
        ];
        for (text, code) in cases {
            assert_eq!(refused(text), code, "{text}");
        }
        assert_eq!(refused(&" ".repeat(MAX_TEXT + 1)), "measurements_too_large");
        assert_eq!(parse(b"{\"\xff\"").unwrap_err().code(), "measurements_not_utf8");
        let twice = parse(image.replace("PCR1", "PCR0").as_bytes()).unwrap_err().to_string();
        assert!(twice.contains("\"PCR0\" occurs twice at line 1"), "{twice}");
    }
}
