//! The page about a run: all that others may know, and nothing of the rows.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{fs, path::Path};

use cloister_attestation::{Sha384, Step};
use cloister_client::words::{NO_CHANNEL, SIMULATED};
use cloister_e2e::{
    cli::{Outcome, cloister, write},
    hostile::BUNDLE,
    iris,
    world::{HttpOptions, HttpWorld, Link, World},
};
use serde_json::Value;

/// Rows whose values cannot stand on the page by chance: no number there has so many decimals.
const ROWS: &str = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm),species\n\
                    5.123456,3.512345,1.412345,0.212345,setosa\n6.312345,2.812345,5.812345,2.212345,virginica\n";

fn report(folder: &Path, way: &[&str]) -> (String, Value) {
    let input = write(folder, "rows.csv", ROWS);
    let [page, evidence, out] = ["report.html", "evidence.cbor", "out.csv"].map(|name| folder.join(name));
    let [page, evidence, out] = [&page, &evidence, &out].map(|path| path.to_str().unwrap());
    let infer = ["--model", "iris", "--in", &input, "--labels", "species", "--evidence", evidence, "--out", out];
    let inferred = cloister(&[&["infer"], way, &infer, &["--report", page, "--json"]].concat());
    assert_eq!(inferred.exit, 0, "{}", inferred.stderr);
    assert!(inferred.stderr.contains(&format!("report: {page}")), "{}", inferred.stderr);
    (fs::read_to_string(page).unwrap(), inferred.json())
}

/// Neither a value of a row, nor a logit, nor how many rows have which label.
fn assert_tells_nothing_of_the_rows(page: &str, predictions: &str) {
    let mut numbers = ROWS.lines().chain(predictions.lines()).flat_map(|line| line.split(',')).peekable();
    assert!(numbers.peek().is_some());
    let fine = |number: &&str| number.split_once('.').is_some_and(|(_, decimals)| decimals.len() > 3);
    let fine: Vec<&str> = numbers.filter(fine).collect();
    assert!(fine.len() >= 14, "features and logits: {fine:?}");
    for number in fine {
        assert!(!page.contains(number.trim_start_matches('-')), "{number}");
    }
}

fn assert_says_how_it_is_verified(page: &str, object: &Value) {
    for step in Step::ALL {
        assert!(page.contains(&format!("</span>{}</h4>", step.name())), "{step}");
    }
    let bundle = Sha384(BUNDLE.digest()).to_string();
    for told in [
        object["module_id"].as_str().unwrap(),
        object["document_time"].as_str().unwrap(),
        &bundle,
        "2 rows were answered by the model iris 1 under encryption.",
        "cloister verify-receipt evidence.cbor --policy POLICY",
        "1.0000: 2 of 2 rows",
    ] {
        assert!(page.contains(told), "{told}");
    }
    let grouped = |bytes: u64| format!("{},{:03} bytes", bytes / 1000, bytes % 1000);
    assert!(page.contains(&grouped(object["bytes_down"].as_u64().unwrap())), "{object}");
}

fn says(page: &str, banner: &str) -> bool {
    page.contains(banner.split_once(": ").unwrap().1)
}

#[test]
fn a_page_says_what_was_verified_and_nothing_of_the_rows() {
    let world = World::serving(Link::Tcp, std::slice::from_ref(&BUNDLE)).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let (page, object) = report(world.folder(), &[&endpoint, "--policy", &policy]);
    assert_says_how_it_is_verified(&page, &object);
    assert_tells_nothing_of_the_rows(&page, &fs::read_to_string(world.folder().join("out.csv")).unwrap());
    assert!(says(&page, SIMULATED) && !says(&page, NO_CHANNEL));
    let policy_digest = Sha384::of(&fs::read(world.policy_file()).unwrap()).to_string();
    assert!(page.contains(&policy_digest));
    assert!(!page.contains(world.folder().to_str().unwrap()), "folders are nobody else's business");

    // What cannot be written is found out before anybody is asked, and a page never takes the place of something else.
    let input = iris::file("iris.csv").display().to_string();
    let infer = ["infer", "https://127.0.0.1:1", "--policy", &policy, "--model", "iris", "--in", &input];
    Outcome::assert_fails(&[&infer[..], &["--report", "/nonexistent/report.html"]].concat(), 6, "file");
    Outcome::assert_fails(&[&infer[..], &["--report", &input]].concat(), 2, "usage");
    let out = world.folder().join("out.csv").display().to_string();
    Outcome::assert_fails(&[&infer[..], &["--out", &out, "--report", &out]].concat(), 2, "usage");
}

#[test]
fn behind_a_gateway_the_page_says_who_stands_there() {
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &HttpOptions::default()).unwrap();
    let policy = world.policy_file().display().to_string();
    let (page, object) = report(world.folder(), &["--gateway", &world.url, "--policy", &policy]);
    assert_says_how_it_is_verified(&page, &object);
    assert_tells_nothing_of_the_rows(&page, &fs::read_to_string(world.folder().join("out.csv")).unwrap());
    assert!(says(&page, SIMULATED) && says(&page, NO_CHANNEL));
    assert!(page.contains(">Whoever ends TLS<"));
}
