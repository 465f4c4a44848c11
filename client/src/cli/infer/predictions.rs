//! Predictions as text: lines of CSV, or elements of a JSON array.

use cloister_client::{Description, Prediction};
use serde_json::{Map, Value, json};

use super::Failure;

/// How the predictions of one model are written.
#[derive(Debug)]
pub(super) struct Shape {
    is_classifier: bool,
    decimals: usize,
    logits: Vec<String>,
    outputs: Option<(Kind, Vec<String>)>,
}

/// What a link gives beside the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Probability,
    Prediction,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Probability => "probability",
            Self::Prediction => "prediction",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Probability => "probabilities",
            Self::Prediction => "predictions",
        }
    }
}

impl Shape {
    pub(super) fn new(description: &Description) -> Self {
        let outputs = match description.labels() {
            labels if description.link().gives_probabilities() => {
                Some((Kind::Probability, labels.iter().map(ToString::to_string).collect()))
            }
            [] => Some((Kind::Prediction, description.logit_names())),
            _ => None,
        };
        Self {
            is_classifier: !description.labels().is_empty(),
            decimals: description.decimals() as usize,
            logits: description.logit_names(),
            outputs,
        }
    }

    /// The names of the columns of CSV.
    pub(super) fn columns(&self) -> Vec<String> {
        let outputs = self.outputs.iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind.name(), name)));
        let label = self.is_classifier.then(|| "label".to_owned());
        label
            .into_iter()
            .chain(["certain".to_owned()])
            .chain(self.logits.iter().map(|name| format!("logit:{name}")))
            .chain(outputs.map(|(kind, name)| format!("{kind}:{name}")))
            .collect()
    }

    /// Label and certainty of a line of CSV.
    pub(super) fn read<'a>(&self, mut cells: impl Iterator<Item = &'a str>) -> Option<(&'a str, bool)> {
        let label = if self.is_classifier { cells.next()? } else { "" };
        Some((label, cells.next()?.parse().ok()?))
    }

    /// The header of CSV.
    pub(super) fn csv_header(&self) -> Result<String, Failure> {
        lines([self.columns()].into_iter())
    }

    /// Lines of CSV.
    pub(super) fn csv(&self, predictions: &[Prediction]) -> Result<String, Failure> {
        lines(predictions.iter().map(|prediction| self.cells(prediction)))
    }

    fn cells(&self, Prediction { label, certain, logits, outputs }: &Prediction) -> Vec<String> {
        let decimals = self.decimals;
        let output = |kind: Kind, output: &f64| match kind {
            Kind::Probability => format!("{output:.6}"),
            Kind::Prediction => output.to_string(),
        };
        let mut cells: Vec<String> = label.iter().map(ToString::to_string).chain([certain.to_string()]).collect();
        cells.extend(logits.iter().map(|logit| format!("{logit:.decimals$}")));
        if let Some((kind, names)) = &self.outputs {
            cells.extend(outputs.iter().take(names.len()).map(|value| output(*kind, value)));
        }
        cells
    }

    /// An element of a JSON array.
    pub(super) fn json(&self, prediction: &Prediction) -> Value {
        let named = |names: &[String], values: &[f64]| -> Value {
            names.iter().zip(values).map(|(name, value)| (name.clone(), json!(value))).collect()
        };
        let mut object = Map::new();
        if let Some(label) = &prediction.label {
            object.insert("label".to_owned(), label.to_string().into());
        }
        object.insert("certain".to_owned(), prediction.certain.into());
        object.insert("logits".to_owned(), named(&self.logits, &prediction.logits));
        if let Some((kind, names)) = &self.outputs {
            object.insert(kind.plural().to_owned(), named(names, &prediction.outputs));
        }
        object.into()
    }

    /// Elements of a JSON array, without what goes before, between and after, indented as within one.
    pub(super) fn json_elements(&self, predictions: &[Prediction]) -> Vec<String> {
        // A line break within a text is escaped, so every one is layout.
        let element = |prediction| format!("  {:#}", self.json(prediction)).replace('\n', "\n  ");
        predictions.iter().map(element).collect()
    }
}

fn lines(records: impl Iterator<Item = Vec<String>>) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).map_err(|error| Failure::internal(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::internal(&error))?;
    String::from_utf8(bytes).map_err(|error| Failure::internal(&error))
}

#[cfg(test)]
mod tests {
    use cloister_client::Label;

    use super::*;

    fn shape() -> Shape {
        let names = || vec!["no".to_owned(), "a \"b\"\nc".to_owned()];
        Shape { is_classifier: true, decimals: 3, logits: names(), outputs: Some((Kind::Probability, names())) }
    }

    fn predictions() -> [Prediction; 2] {
        let prediction = |label: &str, certain, logit: f64| Prediction {
            label: Some(Label::Text(label.to_owned())),
            certain,
            logits: vec![logit, -logit],
            outputs: vec![0.25, 0.75],
        };
        [prediction("no", true, 1.5), prediction("a \"b\"\nc", false, -0.0625)]
    }

    #[test]
    fn elements_make_up_the_array_that_would_be_written_at_once() {
        let (shape, predictions) = (shape(), predictions());
        let array: Value = predictions.iter().map(|prediction| shape.json(prediction)).collect();
        assert_eq!(format!("[\n{}\n]", shape.json_elements(&predictions).join(",\n")), format!("{array:#}"));
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let (shape, predictions) = (shape(), predictions());
        let text = shape.csv_header().unwrap() + &shape.csv(&predictions).unwrap();
        let first = "label,certain,logit:no,\"logit:a \"\"b\"\"\nc\",probability:no,\"probability:a \"\"b\"\"\nc\"\n\
                     no,true,1.500,-1.500,0.250000,0.750000\n";
        assert!(text.starts_with(first), "{text}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        let read: Vec<_> = rows.iter().map(|row| shape.read(row.iter()).unwrap()).collect();
        assert_eq!(read, [("no", true), ("a \"b\"\nc", false)]);
        assert_eq!(shape.read(["no", "perhaps"].into_iter()), None);
    }
}
