//! Trees, forests, boosting and networks, from their ONNX files through a whole service.

use std::fs;

use cloister_client::{AttestedConnection, Prediction};
use cloister_e2e::{
    build::workspace,
    trees::Case,
    world::{Link, World},
};
use cloister_inference::{Bundle, Evaluator, ImportOptions, Thresholds, import};

/// The published logits of the oracle, for every row that the model is tested on.
fn predictions(bundle: &Bundle, rows: &[Vec<f64>]) -> Vec<Prediction> {
    let (description, evaluator) = (bundle.description(), Evaluator::new(bundle));
    let logits = evaluator.evaluate_clear(&description.encode(rows).expect("rows are within their ranges"));
    let publish = |row: Vec<i128>| row.into_iter().map(|logit| description.publish(logit)).collect();
    logits.into_iter().map(|row| Prediction::new(description, publish(row))).collect()
}

/// With its own thresholds a model of trees says what its framework says, of every row.
#[test]
fn trees_with_public_thresholds_are_the_frameworks_own() {
    let mut compared = 0;
    for case in Case::all().unwrap().into_iter().filter(|case| case.trees > 0) {
        let bundle = case.import(1e-2, Thresholds::Public).unwrap().unwrap().bundle;
        let comparison = case.compare(&predictions(&bundle, &case.rows().unwrap())).unwrap();
        let tolerance = 2.0 * bundle.bound() + 1e-4;
        let off = comparison.errors.iter().filter(|error| error.total_cmp(&tolerance).is_gt()).count();
        assert!(comparison.other.max(off) <= case.crossed, "{}: {comparison:?}", case.name);
        compared += 1;
    }
    assert!(compared >= 30, "{compared} models");
}

/// On hidden grids labels may change, by as many as a hundredth of the rows or two.
#[test]
fn hidden_thresholds_and_networks_keep_their_accuracy() {
    for case in Case::all().unwrap().into_iter().filter(|case| case.accuracy.is_some()) {
        let imported =
            case.import(5e-2, Thresholds::Hidden).unwrap().unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let comparison = case.compare(&predictions(&imported.bundle, &case.rows().unwrap())).unwrap();
        assert!(comparison.other <= 2 + comparison.rows / 50, "{}: {comparison:?}", case.name);
    }
}

/// Every model of another kind is refused with a reason and a remedy.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (name, reason, remedy) in [
        ("adaboost", "AdaBoost", "GradientBoosting"),
        ("calibrated", "calibrates", "itself"),
        ("categorical-lgbm", "BRANCH_EQ, as those that sort categories are", "one-hot encode categories"),
        ("member-v5", "BRANCH_MEMBER, as those that sort categories are", "one-hot encode categories"),
        ("missing-lgbm", "it has learned where missing values go: one way at 32 of its 73 branches", "SimpleImputer"),
        ("missing-xgb", "it has learned where missing values go: one way at 30 of its 65 branches", "SimpleImputer"),
        ("network-deep", "2 hidden layers, where one is supported", "hidden_layer_sizes=(16,)"),
        ("pca-tree", "mixtures of columns", "without the decomposition"),
        ("stacking", "no supported model has the output", "itself"),
    ] {
        let onnx = fs::read(workspace().join(format!("tests/data/trees/refused/{name}.onnx"))).expect("it is there");
        let error = import(&onnx, &ImportOptions::new(name, "1")).unwrap_err();
        assert!(["onnx_node", "onnx_graph"].contains(&error.code()), "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert!(error.remedy().contains(remedy), "{name}: {}", error.remedy());
    }
}

/// Every model, through the whole service: replies are what the oracle says, which the tests above hold to the frameworks.
#[tokio::test(flavor = "multi_thread")]
async fn trees_and_networks_are_served() {
    let cases = Case::all().unwrap();
    let thresholds = |case: &Case| if case.trees > 0 { Thresholds::Public } else { Thresholds::Hidden };
    let bundles: Vec<Bundle> =
        cases.iter().map(|case| case.import(5e-2, thresholds(case)).unwrap().unwrap().bundle).collect();
    let world = World::serving(Link::Unix, &bundles).unwrap();
    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    for (case, bundle) in cases.iter().zip(&bundles) {
        let rows: Vec<Vec<f64>> = case.rows().unwrap().into_iter().step_by(EACH).collect();
        let mut model = connection.model(&case.name).await.unwrap();
        let mut found = vec![];
        for rows in rows.chunks(model.description().rows_per_request()) {
            found.extend(model.infer(rows).await.unwrap().predictions);
        }
        // A logit and its publication are each off by the bound at most.
        for (found, oracle) in found.iter().zip(predictions(bundle, &rows)) {
            let off = found.logits.iter().zip(&oracle.logits).map(|(one, other)| (one - other).abs());
            assert!(off.fold(0.0, f64::max) <= 2.0 * bundle.bound(), "{}", case.name);
            assert!(found.label == oracle.label || !found.certain || !oracle.certain, "{}", case.name);
        }
    }
}

/// All rows of all models take some minutes.
const EACH: usize = 15;
