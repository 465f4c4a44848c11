//! The evaluation of linear models.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::binary::Buffers;
use crate::bits::Packer;
use crate::bound::IntegerModel;
use crate::description::Description;
use crate::evaluator::{Asked, Defences, EvaluateError, spread};
use crate::mask::Keystream;
use crate::message::{self, MessageError, MessageKind, RequestParts, leading_bits};
use crate::packing::Packing;
use crate::parameters::ParameterSet;
use crate::public_key::KeyId;
use crate::random::Noise;
use crate::ring::{combine_columns, continue_below_zero, correlate, correlate_rows};
use crate::transform::{Spectrum, Transform};

/// A linear model, ready to evaluate.
pub(crate) struct Linear {
    /// By the numbers of their layouts.
    weights: Vec<Weights>,
    packings: Vec<Packing>,
    /// δ, b and φ.
    shift: u32,
    reply_bits: u32,
    flood: u32,
    /// B: for each limb of the features, those of all outputs.
    biases: Vec<Vec<u64>>,
}

/// The weights as one layout has them.
struct Weights {
    packing: Packing,
    /// For each group, W(X) of every block, highest coefficient first as [`correlate`] takes them:
    /// `taps[j·κ + κ − 1 − c]` is ω_cj.
    taps: Vec<Vec<u64>>,
    /// For each block, the transforms of the W(X) of every group; none where products go without.
    spectra: Vec<Vec<Spectrum>>,
}

/// What one thread needs.
#[derive(Default)]
pub(crate) struct Worker {
    /// One block of the request.
    mask: Vec<u64>,
    spectrum: Option<Spectrum>,
    window: Vec<u64>,
    columns: Vec<u64>,
    /// Sums over blocks, of all groups.
    sums: Sums,
    noise: Option<Noise>,
    buffers: Buffers,
}

/// The reply as it grows: for each group a mask, and the outputs of all rows.
#[derive(Default)]
struct Sums {
    masks: Vec<u64>,
    spectra: Vec<Spectrum>,
    outputs: Vec<u64>,
}

impl Linear {
    pub(crate) fn new(description: &Description, model: &IntegerModel) -> Self {
        let (limbs, scale) = (description.limbs(), description.scale());
        let digits: Vec<Vec<i64>> = model.outputs(limbs.weights).collect();
        let packings = description.packings().to_vec();
        let bias = |l: usize| {
            let digits =
                model.biases.iter().flat_map(move |digits| &digits[l * limbs.weights.count..][..limbs.weights.count]);
            digits.map(|&digit| digit as u64).collect()
        };
        Self {
            weights: packings.iter().map(|packing| Weights::new(*packing, &digits)).collect(),
            packings,
            shift: scale.shift,
            reply_bits: scale.reply,
            flood: scale.flood,
            biases: (0..limbs.features.count).map(bias).collect(),
        }
    }

    pub(crate) fn check(&self, request: &[u8]) -> Result<Asked, MessageError> {
        let parts = self.parse(request)?;
        let packing = &self.packings[usize::from(parts.layout)];
        let logits = parts.rows as u64 * packing.shape.logits as u64;
        let cost = Duration::from_secs_f64(packing.evaluation(parts.rows) / 1e6);
        Ok(Asked { key: KeyId(*parts.key), logits, cost })
    }

    /// The bytes of memory that the weights of such a model take.
    pub(crate) fn memory(description: &Description) -> usize {
        let of = |packing: &Packing| {
            let transform = if packing.transforms() { Spectrum::bytes(packing.degree()) } else { 0 };
            packing.groups() * packing.blocks() * (packing.stride() * size_of::<u64>() + transform)
        };
        description.packings().iter().map(of).sum()
    }

    /// A request of zeros in each layout.
    pub(crate) fn blank_requests(&self, key: KeyId) -> impl Iterator<Item = Vec<u8>> {
        self.packings.iter().enumerate().map(move |(layout, packing)| {
            let set = packing.shape.parameters;
            let mut request = message::header(MessageKind::Request, set, layout as u8, 1).to_vec();
            request.extend(key.0);
            request.resize(packing.request_len(1), 0);
            request
        })
    }

    pub(crate) fn parameters(&self) -> ParameterSet {
        self.packings[0].shape.parameters
    }

    /// φ.
    pub(crate) fn flood(&self) -> u32 {
        self.flood
    }

    pub(crate) fn parse<'a>(&self, request: &'a [u8]) -> Result<RequestParts<'a>, MessageError> {
        RequestParts::parse(request, &self.packings)
    }

    /// 1. For each block: a ← its mask; a' ← a' + W·a; b' ← b' + W·b, on the outputs only.
    /// 2. b' ← b' + 2^δ·B.
    /// 3. Re-randomise: add an encryption of zero under the client's public key.
    /// 4. Flood: b' ← b' + uniform noise of ±2^φ.
    /// 5. Reply with the leading bits of a' and b'.
    pub(crate) fn reply(
        &self,
        request: &RequestParts<'_>,
        defences: Defences<'_>,
        workers: &mut [Worker],
        cancelled: &AtomicBool,
    ) -> Result<Vec<u8>, EvaluateError> {
        let weights = &self.weights[usize::from(request.layout)];
        let threads = match weights.packing.cost(request.rows) > WORTH_SPREADING_US {
            true => workers.len(),
            false => 1,
        };
        let workers = &mut workers[..threads];
        let mut sums = weights.add_up(request, workers, cancelled);
        if cancelled.load(Ordering::Relaxed) {
            return Err(EvaluateError::Cancelled);
        }
        self.add_biases(weights, request.rows, &mut sums.outputs);
        self.finish(weights, request.rows, defences, &mut sums, workers);
        let reply = self.write(weights, request, &sums);
        workers[0].sums = sums;
        Ok(reply)
    }

    fn add_biases(&self, weights: &Weights, rows: usize, outputs: &mut [u64]) {
        let (packing, kappa) = (&weights.packing, weights.packing.kappa());
        for (group, outputs) in outputs.chunks_exact_mut(packing.limb_rows(rows) * kappa).enumerate() {
            for (outputs, biases) in outputs.chunks_exact_mut(kappa).zip(self.biases.iter().cycle()) {
                let biases = &biases[packing.outputs_of(group)];
                let scaled = biases.iter().map(|bias| bias << self.shift);
                outputs.iter_mut().zip(scaled).for_each(|(output, bias)| *output = output.wrapping_add(bias));
            }
        }
    }

    /// Steps 3 and 4, after the transforms of step 1; the groups are spread over the threads.
    fn finish(&self, weights: &Weights, rows: usize, defences: Defences<'_>, sums: &mut Sums, workers: &mut [Worker]) {
        let packing = &weights.packing;
        let (degree, len) = (packing.degree(), packing.limb_rows(rows) * packing.kappa());
        let share = packing.groups().div_ceil(workers.len());
        let transformed = packing.transforms();
        let spectra = if transformed { &mut sums.spectra[..] } else { &mut [] };
        let mut spectra = spectra.chunks_mut(share);
        let groups = sums.masks.chunks_mut(share * degree).zip(sums.outputs.chunks_mut(share * len)).zip(workers);
        spread(groups.map(|((masks, outputs), worker)| (masks, outputs, spectra.next(), worker)), |share| {
            let (masks, outputs, spectra, Worker { noise, buffers, .. }) = share;
            if let Some(spectra) = spectra {
                let transform = Transform::of(packing.shape.parameters);
                masks.chunks_exact_mut(degree).zip(spectra).for_each(|(mask, sum)| transform.backward(sum, mask));
            }
            let noise = noise.get_or_insert_with(Noise::new);
            for (mask, outputs) in masks.chunks_exact_mut(degree).zip(outputs.chunks_exact_mut(len)) {
                if let Some(key) = defences.key {
                    let rows = (packing.stride(), packing.kappa());
                    key.rerandomise(mask, (packing.output(0), rows, outputs), noise, buffers);
                }
                if let Some(bits) = defences.flood {
                    noise.add_flood(bits, outputs);
                }
            }
        });
    }

    fn write(&self, weights: &Weights, request: &RequestParts<'_>, sums: &Sums) -> Vec<u8> {
        let (packing, bits, rows) = (&weights.packing, self.reply_bits, weights.packing.limb_rows(request.rows));
        let header = message::header(MessageKind::Reply, packing.shape.parameters, request.layout, request.rows);
        let mut packer = Packer::new(&header, bits, sums.masks.len() + rows * packing.shape.outputs());
        packer.extend(sums.masks.iter().map(|&coefficient| leading_bits(coefficient, bits)));
        for row in 0..rows {
            for group in 0..packing.groups() {
                let first = (group * rows + row) * packing.kappa();
                let outputs = &sums.outputs[first..][..packing.outputs_of(group).len()];
                packer.extend(outputs.iter().map(|&output| leading_bits(output, bits)));
            }
        }
        packer.finish()
    }
}

/// Below this estimate, in microseconds, threads cost more than they save.
const WORTH_SPREADING_US: f64 = 20_000.0;

impl Weights {
    fn new(packing: Packing, digits: &[Vec<i64>]) -> Self {
        let (kappa, stride) = (packing.kappa(), packing.stride());
        let mut weights = Self { packing, taps: vec![], spectra: vec![] };
        for group in 0..packing.groups() {
            let mut taps = vec![0; packing.blocks() * stride];
            for (output, digits) in digits[packing.outputs_of(group)].iter().enumerate() {
                for (feature, &digit) in digits.iter().enumerate() {
                    taps[feature * kappa + packing.lead() - output] = digit as u64;
                }
            }
            weights.taps.push(taps);
        }
        if packing.transforms() {
            weights.spectra = (0..packing.blocks()).map(|block| weights.transformed(block)).collect();
        }
        weights
    }

    /// The transforms of a block's W(X).
    fn transformed(&self, block: usize) -> Vec<Spectrum> {
        let (stride, transform) = (self.packing.stride(), Transform::of(self.packing.shape.parameters));
        let mut polynomial = vec![0; self.packing.degree()];
        let spectrum = |taps: &Vec<u64>| {
            let taps = taps[block * stride..][..stride].iter().rev();
            polynomial.iter_mut().zip(taps).for_each(|(coefficient, &tap)| *coefficient = tap);
            transform.forward_signed(&polynomial)
        };
        self.taps.iter().map(spectrum).collect()
    }

    /// Step 1, the blocks spread over the threads; of no use once it was cancelled.
    fn add_up(&self, request: &RequestParts<'_>, workers: &mut [Worker], cancelled: &AtomicBool) -> Sums {
        let share = self.packing.blocks().div_ceil(workers.len());
        spread(workers.iter_mut().enumerate(), |(index, worker)| {
            let blocks = index * share..self.packing.blocks().min((index + 1) * share);
            self.clear(request.rows, &mut worker.sums);
            self.add_blocks(request, blocks, worker, cancelled);
        });
        let (first, others) = workers.split_first_mut().expect("there is one worker at least");
        let mut sums = std::mem::take(&mut first.sums);
        others.iter().for_each(|other| self.add(&other.sums, &mut sums));
        sums
    }

    fn clear(&self, rows: usize, sums: &mut Sums) {
        let packing = &self.packing;
        let zeros = |values: &mut Vec<u64>, len: usize| {
            values.clear();
            values.resize(len, 0);
        };
        zeros(&mut sums.masks, packing.groups() * packing.degree());
        zeros(&mut sums.outputs, packing.groups() * packing.limb_rows(rows) * packing.kappa());
        if packing.transforms() {
            let size = packing.degree();
            sums.spectra.retain(|spectrum| spectrum.degree() == size);
            sums.spectra.resize_with(packing.groups(), || Spectrum::zero(size));
            sums.spectra.iter_mut().for_each(Spectrum::clear);
        }
    }

    fn add(&self, other: &Sums, sums: &mut Sums) {
        let add = |sums: &mut [u64], other: &[u64]| {
            sums.iter_mut().zip(other).for_each(|(sum, other)| *sum = sum.wrapping_add(*other));
        };
        add(&mut sums.masks, &other.masks);
        add(&mut sums.outputs, &other.outputs);
        if self.packing.transforms() {
            let transform = Transform::of(self.packing.shape.parameters);
            sums.spectra.iter_mut().zip(&other.spectra).for_each(|(sum, other)| transform.add(other, sum));
        }
    }

    fn add_blocks(
        &self,
        request: &RequestParts<'_>,
        mut blocks: Range<usize>,
        worker: &mut Worker,
        cancelled: &AtomicBool,
    ) {
        let packing = &self.packing;
        let (set, degree) = (packing.shape.parameters, packing.degree());
        let Worker { mask, spectrum, window, columns, sums, .. } = worker;
        let mut stream = Keystream::new(request.seed);
        let lead = packing.stride() - 1;
        let bodies = packing.bodies(request.rows) * set.body_len();
        while let Some(block) = blocks.next().filter(|_| !cancelled.load(Ordering::Relaxed)) {
            mask.resize(lead + degree, 0);
            stream.fill_at(block, &mut mask[lead..]);
            match packing.transforms() {
                true => {
                    let spectrum = Spectrum::of_degree(spectrum, degree);
                    Transform::of(set).forward(&mask[lead..], spectrum);
                    self.add_transformed(block, spectrum, &mut sums.spectra);
                }
                false => {
                    continue_below_zero(mask, lead);
                    self.add_correlated(block, mask, &mut sums.masks);
                }
            }
            self.read_window(request.rows, &request.bodies[block * bodies..][..bodies], window);
            self.add_outputs(block, window, columns, &mut sums.outputs);
        }
    }

    fn add_transformed(&self, block: usize, mask: &Spectrum, sums: &mut [Spectrum]) {
        let transform = Transform::of(self.packing.shape.parameters);
        for (weights, sum) in self.spectra[block].iter().zip(sums) {
            transform.multiply_add(mask, weights, sum);
        }
    }

    fn add_correlated(&self, block: usize, mask: &[u64], sums: &mut [u64]) {
        for (sum, taps) in sums.chunks_exact_mut(self.packing.degree()).zip(&self.taps) {
            correlate(mask, self.of_block(taps, block), sum);
        }
    }

    fn of_block<'a>(&self, taps: &'a [u64], block: usize) -> &'a [u64] {
        &taps[block * self.packing.stride()..][..self.packing.stride()]
    }

    /// A block's window in its order, continued by X^N = −1 at both ends.
    fn read_window(&self, rows: usize, bodies: &[u8], window: &mut Vec<u64>) {
        let packing = &self.packing;
        window.clear();
        message::read_bodies(bodies, packing.shape.parameters, window);
        for body in &mut window[..packing.lead()] {
            *body = body.wrapping_neg();
        }
        for index in packing.degree()..packing.window(rows) {
            window.push(window[index - packing.degree()].wrapping_neg());
        }
    }

    /// Adds a block's share of W·p to the outputs of every group and row, for the polynomial p whose window this is: the
    /// same code for a body and for plain integers.
    fn add_outputs(&self, block: usize, window: &[u64], columns: &mut Vec<u64>, outputs: &mut [u64]) {
        let (stride, kappa) = (self.packing.stride(), self.packing.kappa());
        let of_group = outputs.len() / self.packing.groups();
        // With one output each, rows are scalar products, and fastest column by column.
        let by_columns = kappa == 1 && stride > 1;
        if by_columns {
            columns.clear();
            columns.extend((0..stride).flat_map(|feature| window[feature..].iter().step_by(stride).copied()));
        }
        for (outputs, taps) in outputs.chunks_exact_mut(of_group).zip(&self.taps) {
            match self.of_block(taps, block) {
                // One feature per block: rows lie side by side, and are one long correlation.
                taps if stride == kappa => correlate(window, taps, outputs),
                taps if by_columns => combine_columns(columns, taps, outputs),
                taps => correlate_rows(window, stride, taps, kappa, outputs),
            }
        }
    }
}

/// The oracle: the evaluation on plain integers.
#[cfg(feature = "client")]
impl Linear {
    /// By the very code that evaluates the bodies of ciphertexts.
    pub(crate) fn evaluate_clear(&self, rows: &[impl AsRef<[i64]>]) -> Vec<Vec<i128>> {
        let weights = self.weights.last().expect("every model has a layout");
        rows.chunks(weights.packing.capacity()).flat_map(|rows| self.clear_logits(weights, rows)).collect()
    }

    fn clear_logits(&self, weights: &Weights, rows: &[impl AsRef<[i64]>]) -> Vec<Vec<i128>> {
        let packing = &weights.packing;
        let mut windows = vec![vec![0; packing.window(rows.len())]; packing.blocks()];
        for (row, features) in rows.iter().enumerate() {
            for (feature, &x) in features.as_ref().iter().enumerate() {
                for (limb, digit) in packing.shape.limbs.features.of_word(x).enumerate() {
                    let (block, at) = packing.input(packing.limb_rows(row) + limb, feature);
                    windows[block][packing.lead() + at] = (digit as u64) << self.shift;
                }
            }
        }
        let mut outputs = vec![0; packing.groups() * packing.limb_rows(rows.len()) * packing.kappa()];
        let mut columns = vec![];
        for (block, window) in windows.iter().enumerate() {
            weights.add_outputs(block, window, &mut columns, &mut outputs);
        }
        self.add_biases(weights, rows.len(), &mut outputs);
        let output = |row: usize, output: usize| {
            let (group, place) = (output / packing.kappa(), output % packing.kappa());
            outputs[(group * packing.limb_rows(rows.len()) + row) * packing.kappa() + place] as i64 >> self.shift
        };
        let of_row = |row: usize| {
            let limbs = packing.limb_rows(row)..packing.limb_rows(row + 1);
            let outputs = limbs.flat_map(|limb| (0..packing.shape.outputs()).map(move |c| (limb, c)));
            packing.shape.limbs.recombine(&outputs.map(|(limb, c)| output(limb, c)).collect::<Vec<_>>())
        };
        (0..rows.len()).map(of_row).collect()
    }
}
