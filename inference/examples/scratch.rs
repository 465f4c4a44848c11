use cloister_inference::*;
use std::time::Instant;
fn med(n: usize, mut f: impl FnMut()) -> f64 {
    let mut v: Vec<f64> = (0..n)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    v.sort_by(f64::total_cmp);
    v[n / 2]
}
fn main() {
    let onnx = std::fs::read("tests/data/iris/iris.onnx").unwrap();
    let csv = std::fs::read_to_string("tests/data/iris/iris.csv").unwrap();
    let rows: Vec<Vec<f64>> =
        csv.lines().skip(1).map(|l| l.split(',').take(4).map(|x| x.parse().unwrap()).collect()).collect();
    let names: Vec<&str> = csv.lines().next().unwrap().split(',').take(4).collect();
    let ranges = (0..4)
        .map(|j| FeatureRange {
            name: names[j].into(),
            low: rows.iter().map(|r| r[j]).fold(f64::MAX, f64::min),
            high: rows.iter().map(|r| r[j]).fold(f64::MIN, f64::max),
        })
        .collect();
    for precision in [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6] {
        for ranges in [None, Some(&ranges)] {
            let t = Instant::now();
            let r =
                import(&onnx, &ImportOptions { ranges: ranges.cloned(), precision, ..ImportOptions::new("iris", "1") });
            match r {
                Ok(i) => {
                    println!(
                        "{:?} import {:.1} ms bundle {} desc {}\n{}\n{:?} req {} {} reply {} {} rows {}",
                        ranges.is_some(),
                        t.elapsed().as_secs_f64() * 1e3,
                        i.bundle.to_bytes().len(),
                        i.bundle.description().to_bytes().len(),
                        i.report,
                        i.bundle.description().scale(),
                        i.bundle.request_len(1),
                        i.bundle.request_len(150),
                        i.bundle.reply_len(1),
                        i.bundle.reply_len(150),
                        i.bundle.rows_per_request()
                    );
                }
                Err(e) => println!("{e} -- {}", e.remedy()),
            }
        }
    }
    let b = import(&onnx, &ImportOptions { ranges: Some(ranges), ..ImportOptions::new("iris", "1") }).unwrap().bundle;
    let ev = Evaluator::new(&b);
    let mut s = Scratch::default();
    println!(
        "session {:.1}",
        med(200, || {
            std::hint::black_box(Session::new(b.description()));
        })
    );
    let mut session = Session::new(b.description());
    for n in [1, 10, 150] {
        let batch = &rows[..n];
        let e = med(400, || {
            std::hint::black_box(session.encrypt(batch).unwrap());
        });
        let q = session.encrypt(batch).unwrap();
        let v = med(2000, || {
            std::hint::black_box(ev.evaluate(q.bytes(), &mut s).unwrap());
        });
        let p = ev.evaluate(q.bytes(), &mut s).unwrap();
        let d = med(400, || {
            std::hint::black_box(session.decrypt(&q, &p).unwrap());
        });
        println!("{n} rows: encrypt {e:.1} evaluate {v:.1} decrypt {d:.1} us");
    }
}
