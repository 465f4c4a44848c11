//! Settings that need not be written each time: from the environment, or from a file.
//!
//! The command line counts first, then the environment, then the file, then the default. The way to an evaluator is one setting,
//! whichever of its three names it has: the first layer that names one decides it. A token, which is for an endpoint alone, and a
//! place for objects, which is for the other two, belong to it: those that a layer further down has are left where they are.
//!
//! The file is never looked for in the current directory: a folder that somebody sends could bring a policy of its own, and accept
//! an evaluator of its own with it. And there is no setting that weakens what is verified: what must be proved, the policy says.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{evaluator::EvaluatorArguments, failure::Failure, files, output::Output};

/// For the help and the manual page.
pub(crate) const HELP: &str = "\
Configuration:
  What the command line does not say, the environment does, else the file:
    CLOISTER_ENDPOINT      endpoint      the way to the evaluator, one of these
    CLOISTER_GATEWAY       gateway       three: the first of command line,
    CLOISTER_SAGEMAKER     sagemaker     environment and file to name one decides
    CLOISTER_POLICY        policy        as --policy
    CLOISTER_TOKEN_FILE    token_file    as --token-file, for an endpoint only
    CLOISTER_OBJECTS       objects       as --objects, never for an endpoint
    CLOISTER_CONNECTIONS   connections   as --connections
  A token or objects from below where the way is named are not used for it.
  The file is $CLOISTER_CONFIG, else $XDG_CONFIG_HOME/cloister/config.toml, else
  ~/.config/cloister/config.toml. Paths in it are relative to it:
    endpoint = \"https://evaluator.example:8443\"
    policy = \"policy.toml\"
  `cloister doctor` and `cloister verify -v` say where each value came from.";

/// The most connections that are opened to a model.
pub(crate) const MAX_CONNECTIONS: u8 = 16;
/// If nothing says otherwise.
const CONNECTIONS: u8 = 2;

/// Where a layer is, the one that counts first before the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    CommandLine,
    Environment,
    File(PathBuf),
}

/// A value, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    key: &'static str,
    source: Source,
}

/// The way to an evaluator.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Endpoint(String),
    Gateway(String),
    SageMaker(String),
}

/// All that is set, each by the first layer that says it.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) way: Option<Setting<Way>>,
    pub(crate) objects: Option<Setting<String>>,
    pub(crate) policy: Option<Setting<PathBuf>>,
    pub(crate) token_file: Option<Setting<PathBuf>>,
    connections: Option<Setting<u8>>,
    /// The file that was read, if there is one.
    pub(crate) file: Option<PathBuf>,
}

impl Settings {
    /// What the arguments say, and what they leave to the environment and the file.
    pub(crate) fn load(arguments: &EvaluatorArguments) -> Result<Self, Failure> {
        let file = file()?;
        let path = file.as_ref().map(|(path, _)| path.clone());
        let command_line = (Source::CommandLine, arguments.clone());
        let file = file.map(|(path, layer)| (Source::File(path), layer));
        let layers: Vec<_> = [command_line, (Source::Environment, environment()?)].into_iter().chain(file).collect();
        Ok(Self { file: path, ..Self::of(&layers)? })
    }

    fn of(layers: &[(Source, EvaluatorArguments)]) -> Result<Self, Failure> {
        let way = way(layers)?;
        let token_file = first(layers, "token_file", |layer| layer.token_file.clone());
        let token_file = fitting(token_file, way.as_ref(), |way| matches!(way, Way::Endpoint(_)))?;
        let objects = first(layers, "objects", |layer| layer.objects.clone());
        let objects = fitting(objects, way.as_ref(), |way| !matches!(way, Way::Endpoint(_)))?;
        let policy = first(layers, "policy", |layer| layer.policy.clone());
        let connections = first(layers, "connections", |layer| layer.connections);
        if let Some(setting) = connections.as_ref().filter(|setting| !(1..=MAX_CONNECTIONS).contains(&setting.value)) {
            return Err(Failure::usage(format!("{setting} is {}: 1 to {MAX_CONNECTIONS}", setting.value)));
        }
        Ok(Self { way, objects, policy, token_file, connections, file: None })
    }

    /// The most connections that are to be opened to a model.
    pub(crate) fn connections(&self) -> usize {
        self.connections.as_ref().map_or(CONNECTIONS, |setting| setting.value).into()
    }

    /// Each setting that counts, its value and where that came from.
    pub(crate) fn told(&self) -> Vec<(&'static str, String, String)> {
        let Self { way, objects, policy, token_file, connections, file: _ } = self;
        let path = |setting: &Setting<PathBuf>| setting.told(setting.value.display());
        let told = [
            way.as_ref().map(|setting| setting.told(setting.value.name())),
            objects.as_ref().map(|setting| setting.told(&setting.value)),
            policy.as_ref().map(path),
            token_file.as_ref().map(path),
            connections.as_ref().map(|setting| setting.told(setting.value)),
        ];
        told.into_iter().flatten().collect()
    }

    /// Says all of it: for people if details were asked for.
    pub(crate) fn show(&self, output: &mut Output) {
        let mut object = json!({});
        for (key, value, source) in self.told() {
            if output.is_verbose() {
                output.line(format!("{key:<11} {value}  (from {source})"));
            }
            object[key] = json!({"value": value, "from": source});
        }
        output.set("settings", object);
    }
}

impl Way {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Endpoint(name) | Self::Gateway(name) | Self::SageMaker(name) => name,
        }
    }
}

impl<T> Setting<T> {
    fn told(&self, value: impl fmt::Display) -> (&'static str, String, String) {
        (self.key, value.to_string(), self.source.of(self.key))
    }
}

/// Names the setting, and where it is.
impl<T> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.key, self.source.of(self.key))
    }
}

impl Source {
    fn of(&self, key: &str) -> String {
        match self {
            Self::CommandLine => "the command line".to_owned(),
            Self::Environment => variable(key),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The way that the first layer names, each of which may name one.
fn way(layers: &[(Source, EvaluatorArguments)]) -> Result<Option<Setting<Way>>, Failure> {
    let mut first = None;
    for (source, layer) in layers {
        let setting = |key, way: fn(String) -> Way, name: &Option<String>| {
            name.clone().map(|name| Setting { value: way(name), key, source: source.clone() })
        };
        let named = [
            setting("endpoint", Way::Endpoint, &layer.endpoint),
            setting("gateway", Way::Gateway, &layer.gateway),
            setting("sagemaker", Way::SageMaker, &layer.sagemaker),
        ];
        let mut named = named.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(one), Some(other)) => {
                return Err(Failure::usage(format!("{one} and {other} are two ways: one is wanted")));
            }
            (way, _) => first = first.or(way),
        }
    }
    Ok(first)
}

/// What the first layer says that has a value.
fn first<T>(
    layers: &[(Source, EvaluatorArguments)],
    key: &'static str,
    of: impl Fn(&EvaluatorArguments) -> Option<T>,
) -> Option<Setting<T>> {
    layers.iter().find_map(|(source, layer)| Some(Setting { value: of(layer)?, key, source: source.clone() }))
}

/// A setting that belongs to the way. One that stands below it is left where it is, for it was meant for another: a token must not
/// go to whatever endpoint somebody suggests. One beside or above a way that it is not for is a mistake.
fn fitting<T>(
    setting: Option<Setting<T>>,
    way: Option<&Setting<Way>>,
    fits: fn(&Way) -> bool,
) -> Result<Option<Setting<T>>, Failure> {
    match (setting, way) {
        (Some(setting), Some(way)) if setting.source > way.source => Ok(None),
        (Some(setting), Some(way)) if !fits(&way.value) => {
            Err(Failure::usage(format!("{setting} is not for {way}: leave one of them out")))
        }
        (setting, _) => Ok(setting),
    }
}

fn variable(key: &str) -> String {
    format!("CLOISTER_{}", key.to_uppercase())
}

/// The layer of the environment. What is empty is not set.
fn environment() -> Result<EvaluatorArguments, Failure> {
    let path = |key| env::var_os(variable(key)).filter(|value| !value.is_empty()).map(PathBuf::from);
    let text = |key| match path(key).map(|value| value.into_os_string().into_string()) {
        Some(Err(_)) => Err(Failure::usage(format!("{} is not text", variable(key)))),
        Some(Ok(value)) => Ok(Some(value)),
        None => Ok(None),
    };
    let connections = text("connections")?.map(|value| value.parse().map_err(|_| value));
    let connections = connections
        .transpose()
        .map_err(|value| Failure::usage(format!("{} is {value:?}: 1 to {MAX_CONNECTIONS}", variable("connections"))))?;
    Ok(EvaluatorArguments {
        endpoint: text("endpoint")?,
        gateway: text("gateway")?,
        sagemaker: text("sagemaker")?,
        objects: text("objects")?,
        policy: path("policy"),
        token_file: path("token_file"),
        connections,
    })
}

/// The layer of the file, if there is one. One that was named must be there.
fn file() -> Result<Option<(PathBuf, EvaluatorArguments)>, Failure> {
    let named = env::var_os("CLOISTER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = named.clone().or_else(usual_file) else { return Ok(None) };
    if named.is_none() && !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let layer = read(&path)?;
    Ok(Some((path, layer)))
}

/// Where the file is that nobody has to name. Of relative variables nobody knows what they are relative to, so they do not count
/// (XDG Base Directory Specification).
pub(crate) fn usual_file() -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(folder.join("cloister/config.toml"))
}

fn read(path: &Path) -> Result<EvaluatorArguments, Failure> {
    let bad = |error: &dyn fmt::Display| {
        Failure::bad_input(
            "bad_configuration",
            format!("{}: {error}", path.display()),
            "Correct the file; `cloister --help` lists its keys.",
        )
    };
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| bad(&error))?;
    let layer: EvaluatorArguments = toml::from_str(text).map_err(|error| bad(&error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let relative = |other: Option<PathBuf>| other.map(|other| folder.join(other));
    Ok(EvaluatorArguments { policy: relative(layer.policy), token_file: relative(layer.token_file), ..layer })
}
