//! What the machine itself can do on one thread, and what that means for each linear task: the least time that the
//! arithmetic of a bare evaluation takes (`tests/peers/LIMITS.md`).
//!
//! A limit is the best of many short repetitions, not a median: what others do on the machine only ever slows it down.

use std::{hint::black_box, time::Instant};

use aes::Aes256;
use cloister_e2e::tasks::Task;
use cloister_inference::Bundle;
use ctr::{
    Ctr128BE,
    cipher::{BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher},
};
use pulp::{Arch, Simd, WithSimd};
use tfhe_ntt::native64::Plan32;

use crate::{Figure, linear::TASKS};

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let machine = Machine::measure();
    let mut figures = machine.figures();
    for (id, name, count, precision) in TASKS {
        let mut task = Task::load(name)?;
        let bundle = task.import(precision)?;
        task.rows.truncate(count);
        figures.extend(Work::of(&bundle, &task).figures(id, &machine));
    }
    Ok(figures)
}

/// Rates in 10^9 a second, transforms in microseconds.
struct Machine {
    memory: Vec<(&'static str, f64, f64)>,
    multiply_adds: Vec<(&'static str, f64, f64)>,
    /// AES-256 on many blocks at once, and in counter mode as masks are expanded.
    aes: (f64, f64),
    transforms: Vec<Transforms>,
}

impl Machine {
    fn measure() -> Self {
        let levels = [("l1", 16 << 10), ("l2", 384 << 10), ("memory", 256 << 20)];
        Self {
            memory: levels.map(|(name, len)| (name, read(len), copy(len / 2))).into(),
            multiply_adds: multiply_adds(),
            aes: (blocks(), keystream()),
            transforms: [2048, 4096].map(Transforms::measure).into(),
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let figure = |id: String, value, unit| Figure { id: format!("machine/{id}"), value, unit };
        let mut figures = vec![
            figure("aes256/blocks".into(), self.aes.0, "GB/s"),
            figure("aes256/keystream".into(), self.aes.1, "GB/s"),
        ];
        for (name, read, copy) in &self.memory {
            figures.push(figure(format!("{name}/read"), *read, "GB/s"));
            figures.push(figure(format!("{name}/copy"), *copy, "GB/s"));
        }
        for (name, aligned, sliding) in &self.multiply_adds {
            figures.push(figure(format!("multiply_add/{name}"), *aligned, "G/s"));
            figures.push(figure(format!("multiply_add/{name}_sliding"), *sliding, "G/s"));
        }
        for Transforms { degree, forward, accumulate, backward } in &self.transforms {
            figures.push(figure(format!("ntt/{degree}/forward"), *forward, "us"));
            figures.push(figure(format!("ntt/{degree}/multiply_add"), *accumulate, "us"));
            figures.push(figure(format!("ntt/{degree}/backward"), *backward, "us"));
        }
        figures
    }

    fn multiply_add(&self) -> f64 {
        self.multiply_adds.iter().map(|(_, aligned, _)| *aligned).fold(0.0, f64::max)
    }
}

/// What the bare evaluation of a task's rows cannot do without, in all of its requests.
#[derive(Default)]
struct Work {
    keystream_bytes: f64,
    multiply_adds: f64,
    transforms_us: Option<[f64; 3]>,
    degree: usize,
    /// Read or written once: requests, masks, weights, sums and replies.
    bytes: f64,
}

impl Work {
    fn of(bundle: &Bundle, task: &Task) -> Self {
        let mut work = Self::default();
        task.rows.chunks(bundle.rows_per_request()).for_each(|rows| work.add(bundle, rows.len()));
        work
    }

    /// Counts as `inference/src/evaluator.rs` computes.
    fn add(&mut self, bundle: &Bundle, rows: usize) {
        let description = bundle.description();
        let layout = description.layout_for(rows).expect("the tasks are linear models");
        let transforms = description.transforms(rows);
        let (limbs, degree) = (description.limbs(), description.parameters().polynomial_size().0);
        let blocks = description.features().len().div_ceil(layout.features);
        let groups = (description.logits() * limbs.weights.count).div_ceil(layout.outputs);
        let (pairs, taps) = (blocks * groups, layout.features * layout.outputs);
        let outputs = rows * limbs.features.count * layout.outputs;
        let (products, weights) = match transforms {
            true => (0, 20 * pairs * degree + 8 * pairs * taps),
            false => (pairs * taps * degree, 8 * pairs * taps),
        };
        if transforms {
            let counts = self.transforms_us.get_or_insert_default();
            for (count, more) in counts.iter_mut().zip([blocks, pairs, groups]) {
                *count += more as f64;
            }
        }
        self.degree = degree;
        self.keystream_bytes += (8 * blocks * degree) as f64;
        self.multiply_adds += (products + pairs * taps * outputs) as f64;
        let sums = 8 * groups * (degree + outputs);
        self.bytes += (bundle.request_len(rows) + bundle.reply_len(rows) + 8 * blocks * degree + weights + sums) as f64;
    }

    fn figures(&self, id: &str, machine: &Machine) -> Vec<Figure> {
        let transforms = machine.transforms.iter().find(|transforms| transforms.degree == self.degree);
        let transforms = transforms.zip(self.transforms_us).map_or(0.0, |(one, [forward, accumulate, backward])| {
            forward * one.forward + accumulate * one.accumulate + backward * one.backward
        });
        let level = match self.bytes <= L2 {
            true => machine.memory[1].1,
            false => machine.memory[2].1,
        };
        let us = |amount: f64, giga_per_second: f64| amount / giga_per_second / 1e3;
        let parts = [
            ("keystream_us", us(self.keystream_bytes, machine.aes.0)),
            ("multiply_adds_us", us(self.multiply_adds, machine.multiply_add())),
            ("transforms_us", transforms),
            ("bytes_us", us(self.bytes, level)),
        ];
        let figure = |what: &str, value| Figure { id: format!("limit/{id}/{what}"), value, unit: "us" };
        let sum = parts.iter().map(|(_, us)| us).sum();
        parts.iter().map(|(what, us)| figure(what, *us)).chain([figure("sum_us", sum)]).collect()
    }
}

/// The second cache of the smallest processor that this is compared on.
const L2: f64 = (1 << 20) as f64;

/// As much of a signal as is multiplied at once; on a cache line, so that no load touches two.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Block([u64; LANES]);

const LANES: usize = 64;

fn read(len: usize) -> f64 {
    struct Fold<'a>(&'a [Block]);
    impl WithSimd for Fold<'_> {
        type Output = [u64; LANES];
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let mut folded = [0; LANES];
            for Block(words) in self.0 {
                folded.iter_mut().zip(words).for_each(|(folded, word)| *folded ^= word);
            }
            folded
        }
    }
    let blocks = vec![Block([1; LANES]); len / size_of::<Block>()];
    best(len as f64, || Arch::new().dispatch(Fold(black_box(&blocks))))
}

fn copy(len: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; len], vec![2; len]);
    best(len as f64, || black_box(&mut to).copy_from_slice(black_box(&from)))
}

/// Of each vector level that the processor has: with operands that lie on cache lines, and with those of a sliding sum.
fn multiply_adds() -> Vec<(&'static str, f64, f64)> {
    let (signal, taps) = (vec![Block([3; LANES]); 32], [5; 32]);
    let words: Vec<u64> = signal.iter().flat_map(|block| block.0).collect();
    let terms = (LANES * taps.len()) as f64;
    let mut levels = vec![];
    #[cfg(target_arch = "x86_64")]
    {
        let rates = |name, run: &dyn Fn(Aligned<'_>), slide: &dyn Fn(Sliding<'_>)| {
            let aligned = best(terms, || run(Aligned(black_box(&signal), black_box(&taps))));
            (name, aligned, best(terms, || slide(Sliding(black_box(&words), black_box(&taps)))))
        };
        if let Some(v3) = pulp::x86::V3::try_new() {
            levels.push(rates("avx2", &|terms| Simd::vectorize(v3, terms), &|terms| Simd::vectorize(v3, terms)));
        }
        if let Some(v4) = pulp::x86::V4::try_new() {
            levels.push(rates("avx512", &|terms| Simd::vectorize(v4, terms), &|terms| Simd::vectorize(v4, terms)));
        }
    }
    levels
}

struct Aligned<'a>(&'a [Block], &'a [u64]);

impl WithSimd for Aligned<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        multiply_add(self.0.iter().map(|block| &block.0), self.1);
    }
}

struct Sliding<'a>(&'a [u64], &'a [u64]);

impl WithSimd for Sliding<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        multiply_add(self.0.windows(LANES).map(|window| window.try_into().expect("as long")), self.1);
    }
}

#[inline(always)]
fn multiply_add<'a>(signal: impl Iterator<Item = &'a [u64; LANES]>, taps: &[u64]) {
    let mut sums = [0_u64; LANES];
    for (words, &tap) in signal.zip(taps) {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(word.wrapping_mul(tap));
        }
    }
    black_box(sums);
}

fn blocks() -> f64 {
    let (cipher, mut blocks) = (Aes256::new(&[7; 32].into()), vec![aes::Block::default(); 1024]);
    best(size_of_val(&blocks[..]) as f64, || cipher.encrypt_blocks(black_box(&mut blocks)))
}

/// In calls of a polynomial each, as masks are expanded.
fn keystream() -> f64 {
    let mut stream = Ctr128BE::<Aes256>::new(&[7; 32].into(), &[0; 16].into());
    let mut bytes = vec![0; 16 << 10];
    best(bytes.len() as f64, || stream.apply_keystream(black_box(&mut bytes[..])))
}

struct Transforms {
    degree: usize,
    forward: f64,
    accumulate: f64,
    backward: f64,
}

impl Transforms {
    fn measure(degree: usize) -> Self {
        let plan = Plan32::try_new(degree).expect("there are plans for all powers of two from 32 on");
        let primes = [plan.ntt_0(), plan.ntt_1(), plan.ntt_2(), plan.ntt_3(), plan.ntt_4()];
        let mut words: Vec<u64> = (1..=degree as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let [one, mut other] = [(); 2].map(|()| [(); 5].map(|()| vec![1_u32; degree]));
        let us = |rate: f64| 1e-3 / rate;
        let [p0, p1, p2, p3, p4] = &mut other;
        let forward = us(best(1.0, || plan.fwd(black_box(&words), p0, p1, p2, p3, p4)));
        let backward = us(best(1.0, || plan.inv(black_box(&mut words), p0, p1, p2, p3, p4)));
        let accumulate = us(best(1.0, || {
            for ((prime, sum), one) in primes.iter().zip(&mut other).zip(&one) {
                prime.mul_accumulate(black_box(sum), black_box(one), black_box(one));
            }
        }));
        Self { degree, forward, accumulate, backward }
    }
}

/// The best rate, in 10^9 a second, at which `work` does `amount`.
fn best<T>(amount: f64, mut work: impl FnMut() -> T) -> f64 {
    let mut best = f64::INFINITY;
    let (started, mut calls) = (Instant::now(), 1);
    while started.elapsed().as_secs_f64() < 0.3 {
        let before = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        let seconds = before.elapsed().as_secs_f64();
        best = best.min(seconds / f64::from(calls));
        // Long enough for the clock, short enough to fall between interruptions.
        if seconds < 50e-6 {
            calls *= 2;
        }
    }
    amount / best / 1e9
}
