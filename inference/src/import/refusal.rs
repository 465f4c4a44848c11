//! What is refused, why, and what to do about it.

use rten_onnx::onnx::NodeProto;

use super::ImportError;
use super::onnx::op;

const MACHINE_LEARNING: &str = "ai.onnx.ml";

/// The operators that are understood, and whether they are of machine learning or of ONNX itself.
const MACHINE_LEARNING_OPERATORS: [&str; 11] = [
    "ArrayFeatureExtractor",
    "FeatureVectorizer",
    "Imputer",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "Scaler",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "ZipMap",
];

const OPERATORS: [&str; 29] = [
    "Abs",
    "Add",
    "ArgMax",
    "Cast",
    "CastLike",
    "Concat",
    "Div",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "Identity",
    "LpNormalization",
    "MatMul",
    "Mul",
    "Neg",
    "Not",
    "Reciprocal",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
];

/// What an operator gives away of the model that it is from.
struct Sign {
    operators: &'static [&'static str],
    /// It comes from …
    model: &'static str,
    remedy: &'static str,
}

/// The most telling first: some operators are in several kinds of models.
const SIGNS: [Sign; 14] = [
    Sign {
        operators: &["SVMClassifier", "SVMRegressor"],
        model: "a support vector machine with a kernel",
        remedy: "train LinearSVC or LinearSVR, which have no kernel",
    },
    Sign {
        operators: &["Scan", "CDist", "TopK", "Loop"],
        model: "distances to the training data, as nearest neighbours and kernels take them",
        remedy: "train a linear model, a forest or a small network",
    },
    Sign {
        operators: &["ReduceLogSumExp"],
        model: "naive Bayes or a mixture",
        remedy: "train LogisticRegression or LinearDiscriminantAnalysis, whose boundaries are linear, or a forest",
    },
    Sign {
        operators: &["Elu", "Gelu", "HardSigmoid", "LeakyRelu", "PRelu", "Selu", "Softplus", "Softsign"],
        model: "a neural network with another activation",
        remedy: "train with the activation relu, tanh or logistic, or with none",
    },
    Sign {
        operators: &["IsNaN", "GreaterOrEqual", "LessOrEqual"],
        model: "QuantileTransformer or an imputer of texts, which decide by value",
        remedy: "use a StandardScaler or RobustScaler in its place",
    },
    Sign {
        operators: &["Equal"],
        model: "AdaBoost, which compares votes, or another step that decides by value",
        remedy: "boost with GradientBoosting in place of AdaBoost; decide by value before training",
    },
    Sign {
        operators: &["ReduceProd", "ConstantOfShape"],
        model: "PolynomialFeatures, which multiplies columns",
        remedy: "compute the products before training, and give them as columns of their own",
    },
    Sign {
        operators: &["OneHotEncoder", "LabelEncoder", "CategoryMapper", "DictVectorizer"],
        model: "an encoder of categories, which makes other columns",
        remedy: "encode the categories before training, and give each 0 or 1 as a column of its own",
    },
    Sign {
        operators: &["TfIdfVectorizer", "StringNormalizer", "Tokenizer"],
        model: "a vectoriser of text",
        remedy: "vectorise the text before training, and give each term as a column of its own",
    },
    Sign {
        operators: &["Pow", "Log"],
        model: "PowerTransformer or a logarithm of features",
        remedy: "transform the columns before training, or use a StandardScaler in its place",
    },
    Sign {
        operators: &["Binarizer"],
        model: "Binarizer, or a classifier of several labels at once",
        remedy: "cut the columns before training; train one classifier for each of several labels",
    },
    Sign {
        operators: &["Sign"],
        model: "a classifier of several labels at once",
        remedy: "train one classifier for each label, and import each",
    },
    Sign {
        operators: &["Less", "Greater", "Where"],
        model: "KBinsDiscretizer or another step that decides by value",
        remedy: "sort the columns into bins before training, and give those as columns",
    },
    Sign {
        operators: &["Clip", "Min", "Max"],
        model: "MinMaxScaler(clip=True) or SGDClassifier(loss=\"modified_huber\"), which cut values off",
        remedy: "train with clip=False, as values out of range are refused anyway, or with loss=\"log_loss\"; or export \
                 the classifier with the option raw_scores=True",
    },
];

/// Refuses graphs with operators that no supported model has, by the one that tells most about the model.
pub(super) fn check_operators(nodes: &[NodeProto]) -> Result<(), ImportError> {
    for Sign { operators, model, remedy } in &SIGNS {
        if let Some(node) = nodes.iter().find(|node| operators.contains(&op(node))) {
            return Err(refused_for(node, format!("it comes from {model}"), *remedy));
        }
    }
    match nodes.iter().find(|node| !is_known(node)) {
        Some(node) => Err(refused(node, "no supported model has this operator")),
        None => Ok(()),
    }
}

fn is_known(node: &NodeProto) -> bool {
    match node.domain.as_deref().unwrap_or_default() {
        MACHINE_LEARNING => MACHINE_LEARNING_OPERATORS.contains(&op(node)),
        "" | "ai.onnx" => OPERATORS.contains(&op(node)),
        _ => false,
    }
}

/// Refuses a node, with what helps for its operator.
pub(super) fn refused(node: &NodeProto, reason: impl Into<String>) -> ImportError {
    let remedy = match op(node) {
        "Scaler" | "Sub" | "Mul" | "Add" | "Div" | "MatMul" | "Gemm" | "Neg" | "Sum" => {
            "keep to scalers and decompositions that add to columns, multiply them by constants or mix them, before one \
             linear model, forest or network of one hidden layer"
        }
        "Imputer" => "use SimpleImputer for missing values as the first step, with one value for each column",
        "Normalizer" | "LpNormalization" | "Abs" | "ReduceSumSquare" | "Sqrt" => {
            "use Normalizer as the first step, or after a StandardScaler exported from a DoubleTensorType"
        }
        "Slice" | "Gather" | "ArrayFeatureExtractor" | "Concat" | "FeatureVectorizer" | "Reshape" | "Flatten" => {
            "select columns by constant numbers, once for all rows"
        }
        "LinearClassifier"
        | "LinearRegressor"
        | "TreeEnsemble"
        | "TreeEnsembleClassifier"
        | "TreeEnsembleRegressor" => "export the model again with skl2onnx or onnxmltools, unchanged",
        "Relu" | "Tanh" => "export a network of one hidden layer, whose outputs are its scores or probabilities",
        "ZipMap" => "export with the option zipmap=False",
        "Softmax" | "Sigmoid" | "Exp" | "Reciprocal" | "Not" | "ArgMax" | "ReduceSum" => {
            "export the classifier with the option raw_scores=True, so that the scores are its output"
        }
        _ => {
            "export a linear model, trees or a network of one hidden layer, after scalers or decompositions, with skl2onnx"
        }
    };
    refused_for(node, reason, remedy)
}

/// Refuses a graph as a whole, with what helps.
pub(super) fn graph_refused_for(reason: impl Into<String>, remedy: impl Into<String>) -> ImportError {
    ImportError::Graph { reason: reason.into(), remedy: remedy.into() }
}

/// Refuses a node, with another remedy than its operator's.
pub(super) fn refused_for(node: &NodeProto, reason: impl Into<String>, remedy: impl Into<String>) -> ImportError {
    ImportError::UnsupportedNode {
        node: node.name.clone().unwrap_or_default(),
        op: op(node).into(),
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::model::Model;
    use crate::import::sample::{Sample, changed, node};

    #[test]
    fn the_most_telling_operator_is_named() {
        let refusal = |nodes: &[&str]| {
            let sample = nodes.iter().fold(Sample::new(2), |sample, node| sample.node(node));
            sample.refusal(&["y"])
        };
        let power = refusal(&["Less(X, X) -> l", "Log(X) -> y"]);
        assert_eq!(
            (power.0.as_str(), power.1.as_str()),
            ("Log", "it comes from PowerTransformer or a logarithm of features")
        );
        assert_eq!(refusal(&["Pow(X, X) -> a", "ReduceLogSumExp(a) -> y"]).0, "ReduceLogSumExp");
        assert_eq!(refusal(&["Clip(X) -> a", "Selu(a) -> y"]).0, "Selu");
        assert_eq!(refusal(&["ConstantOfShape(X) -> a", "Equal(a, a) -> y"]).0, "Equal");
        assert_eq!(refusal(&["Mystery(X) -> y"]).1, "no supported model has this operator");
    }

    #[test]
    fn operators_are_known_by_their_domain() {
        for (op, domain) in [("Scaler", "com.example"), ("ZipMap", ""), ("Add", "ai.onnx.ml"), ("TreeEnsemble", "")] {
            let bytes = changed(|graph| {
                let scaler = node(graph, "Scaler");
                (scaler.op_type, scaler.domain) = (Some(op.into()), Some(domain.into()));
            });
            let ImportError::UnsupportedNode { node, op: found, .. } = Model::read(&bytes).unwrap_err() else {
                panic!()
            };
            assert_eq!((node.as_str(), found.as_str()), ("Scaler", op));
        }
        let spelled_out = changed(|graph| node(graph, "Identity").domain = Some("ai.onnx".into()));
        assert!(Model::read(&spelled_out).is_ok());
    }

    #[test]
    fn every_remedy_says_what_to_do() {
        for op in
            MACHINE_LEARNING_OPERATORS.iter().chain(&OPERATORS).chain(SIGNS.iter().flat_map(|sign| sign.operators))
        {
            let node = NodeProto { op_type: Some((*op).into()), ..Default::default() };
            assert!(refused(&node, "reason").remedy().len() > 20, "{op}");
        }
    }
}
