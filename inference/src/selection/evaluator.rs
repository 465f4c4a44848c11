//! The evaluation of models that choose: request bytes in, reply bytes out.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::diagram::{Diagram, Slots};
use super::ggsw::{Bits, Encrypted, Gate, GateBuffers};
use super::machine::{Machine, Space, add};
use super::model::{Model, Network, Neuron, Trees};
use super::{Selection, Shape};
use crate::bits::Packer;
use crate::description::Description;
use crate::evaluator::{Asked, Defences, EvaluateError, spread};
use crate::mask::Keystream;
use crate::message::{self, MessageError, MessageKind, SelectionRequest, leading_bits};
use crate::parameters::ParameterSet;
use crate::public_key::KeyId;
use crate::random::Noise;

/// A model that chooses, ready to evaluate.
pub(crate) struct Chooser {
    pub(crate) shape: Shape,
    gate: Gate,
    parts: Parts,
    base: Vec<i64>,
    flood: u32,
    /// The bits that the model reads, and for each bit its place among them.
    used: Vec<u32>,
    places: Vec<u32>,
    cost: Duration,
    /// For the oracle.
    #[cfg(feature = "client")]
    selection: Selection,
}

/// What threads take one after the other.
enum Parts {
    Trees(Vec<Diagram>),
    Network(Vec<Neuron>),
}

/// Memory of evaluations, kept from one to the next.
#[derive(Default)]
pub(crate) struct ChooserScratch {
    bits: Option<(Shape, usize, Bits)>,
}

/// That of one thread.
#[derive(Default)]
pub(crate) struct ChooserWorker {
    buffers: Option<(Shape, GateBuffers)>,
    slots: Slots,
    turning: [Vec<u64>; 3],
    sum: Vec<u64>,
    noise: Option<Noise>,
}

impl Chooser {
    pub(crate) fn new(description: &Description, selection: &Selection, model: &Model) -> Self {
        let shape = description.selection_shape().expect("a model that chooses has a shape");
        let parts = Parts::new(model, selection);
        let mut used = parts.bits();
        used.sort_unstable();
        used.dedup();
        let mut places = vec![u32::MAX; shape.bits];
        used.iter().enumerate().for_each(|(place, &bit)| places[bit as usize] = place as u32);
        let cost = cost(&shape, used.len(), parts.selects());
        let (base, flood) = (model.base().to_vec(), description.scale().flood);
        Self {
            shape,
            gate: Gate::new(shape),
            parts,
            base,
            flood,
            used,
            places,
            cost,
            #[cfg(feature = "client")]
            selection: selection.clone(),
        }
    }

    /// The bytes of memory that an evaluation takes beside its messages: every bit's ciphertext.
    pub(crate) fn memory(shape: &Shape) -> usize {
        shape.bits * Gate::bytes(shape)
    }

    pub(crate) fn parse<'a>(&self, request: &'a [u8]) -> Result<SelectionRequest<'a>, MessageError> {
        SelectionRequest::parse(request, &self.shape)
    }

    pub(crate) fn check(&self, request: &[u8]) -> Result<Asked, MessageError> {
        let parts = self.parse(request)?;
        Ok(Asked { key: KeyId(*parts.key), logits: self.shape.logits as u64, cost: self.cost })
    }

    /// A request of zeros.
    pub(crate) fn blank_request(&self, key: KeyId) -> Vec<u8> {
        let mut request = message::header(MessageKind::Request, self.shape.parameters, 0, 1).to_vec();
        request.extend(key.0);
        request.resize(self.shape.request_len(), 0);
        request
    }

    /// 1. Expand the masks and transform the bits that the model reads.
    /// 2. Evaluate every tree or neuron, and add them up.
    /// 3. Add the base to the logits, and the client's check.
    /// 4. Re-randomise: add an encryption of zero under the client's public key.
    /// 5. Flood: uniform noise of ±2^φ on every output.
    /// 6. Reply with the leading bits.
    pub(crate) fn reply(
        &self,
        request: &SelectionRequest<'_>,
        defences: Defences<'_>,
        workers: &mut [ChooserWorker],
        scratch: &mut ChooserScratch,
        cancelled: &AtomicBool,
    ) -> Result<Vec<u8>, EvaluateError> {
        workers.iter_mut().for_each(|worker| worker.prepare(&self.gate, &self.shape));
        let bits = scratch.bits(&self.gate, &self.shape, self.used.len());
        self.expand(request, workers, bits, cancelled);
        self.add_up(workers, bits, cancelled);
        if cancelled.load(Ordering::Relaxed) {
            return Err(EvaluateError::Cancelled);
        }
        let (first, others) = workers.split_first_mut().expect("there is one worker at least");
        others.iter().for_each(|other| add(&other.sum, &mut first.sum));
        Ok(self.finish(request, defences, first))
    }

    fn expand(
        &self,
        request: &SelectionRequest<'_>,
        workers: &mut [ChooserWorker],
        bits: &mut Bits,
        cancelled: &AtomicBool,
    ) {
        let mut bits: Vec<_> = bits.as_mut_view().into_ggsw_iter().collect();
        let share = self.used.len().div_ceil(workers.len()).max(1);
        let shares = self.used.chunks(share).zip(bits.chunks_mut(share)).zip(workers);
        spread(shares, |((used, bits), worker)| {
            let mut stream = Keystream::new(request.seed);
            for (&bit, out) in used.iter().zip(bits).take_while(|_| !cancelled.load(Ordering::Relaxed)) {
                let bodies = &request.bits[bit as usize * self.shape.bit_len()..][..self.shape.bit_len()];
                self.gate.expand(&mut stream, bit as usize, bodies, out, worker.buffers());
            }
        });
    }

    fn add_up(&self, workers: &mut [ChooserWorker], bits: &Bits, cancelled: &AtomicBool) {
        let bits: Vec<_> = bits.as_view().into_ggsw_iter().collect();
        let parameters = self.shape.parameters;
        let space = Space { degree: parameters.degree(), masks: parameters.dimension(), cancelled };
        let next = AtomicUsize::new(0);
        spread(workers.iter_mut(), |worker| {
            let ChooserWorker { buffers, slots, turning, sum, .. } = worker;
            let buffers = buffers.as_mut().map(|(_, buffers)| buffers).expect("workers are prepared");
            sum.clear();
            sum.resize(space.len(), 0);
            let mut machine = Encrypted { gate: &self.gate, bits: &bits, places: &self.places, buffers };
            while self.parts.run(
                next.fetch_add(1, Ordering::Relaxed),
                &mut machine,
                space,
                &self.shape,
                (slots, turning),
                sum,
            ) {}
        });
    }

    fn finish(&self, request: &SelectionRequest<'_>, defences: Defences<'_>, worker: &mut ChooserWorker) -> Vec<u8> {
        let ChooserWorker { sum, noise, .. } = worker;
        let (shape, parameters) = (&self.shape, self.shape.parameters);
        let (mask, body) = sum.split_at_mut(parameters.mask_len());
        let outputs = &mut body[..shape.outputs()];
        self.base.iter().zip(&mut *outputs).for_each(|(&base, output)| *output = output.wrapping_add(base as u64));
        let mut words = vec![0; mask.len()];
        Keystream::new(request.seed).fill_at(0, &mut words);
        add(&words, mask);
        words.clear();
        message::read_bodies(request.check, parameters, &mut words);
        add(&words, outputs);

        let noise = noise.get_or_insert_with(Noise::new);
        if let Some(key) = defences.key {
            let rows = (outputs.len(), outputs.len());
            key.rerandomise(mask, (0, rows, outputs), noise, &mut Default::default());
        }
        if let Some(bits) = defences.flood {
            noise.add_flood(bits, outputs);
        }
        let header = message::header(MessageKind::Reply, parameters, 0, 1);
        let mut packer = Packer::new(&header, shape.reply_bits, mask.len() + outputs.len());
        let coefficients = mask.iter().chain(&*outputs);
        packer.extend(coefficients.map(|&coefficient| leading_bits(coefficient, shape.reply_bits)));
        packer.finish()
    }

    pub(crate) fn flood(&self) -> u32 {
        self.flood
    }

    /// The oracle: the same evaluation on bits that are known.
    #[cfg(feature = "client")]
    pub(crate) fn evaluate_clear(&self, levels: &[i64]) -> Vec<i128> {
        let bits = self.selection.bits_of(levels).map(|bit| bit == 1).collect();
        let cancelled = AtomicBool::new(false);
        let space = Space { degree: self.shape.parameters.degree(), masks: 0, cancelled: &cancelled };
        let (mut machine, mut sum) = (super::machine::Clear(bits), vec![0; space.len()]);
        let (mut slots, mut turning) = (Slots::default(), Default::default());
        let mut part = 0;
        while self.parts.run(part, &mut machine, space, &self.shape, (&mut slots, &mut turning), &mut sum) {
            part += 1;
        }
        self.base.iter().zip(sum).map(|(&base, word)| i128::from((base as u64).wrapping_add(word) as i64)).collect()
    }
}

impl Parts {
    fn new(model: &Model, selection: &Selection) -> Self {
        match model {
            Model::Trees(Trees { trees, .. }) => Self::Trees(diagrams(trees, &selection.ranges())),
            Model::Network(Network { neurons, .. }) => Self::Network(neurons.clone()),
        }
    }

    /// Evaluates a part; whether there is one of that number.
    fn run(
        &self,
        index: usize,
        machine: &mut impl Machine,
        space: Space<'_>,
        shape: &Shape,
        (slots, turning): (&mut Slots, &mut [Vec<u64>; 3]),
        sum: &mut [u64],
    ) -> bool {
        match self {
            Self::Trees(diagrams) => {
                diagrams.get(index).map(|diagram| diagram.run(machine, space, slots, sum)).is_some()
            }
            Self::Network(neurons) => {
                neurons.get(index).map(|neuron| neuron.run(machine, space, shape, turning, sum)).is_some()
            }
        }
    }

    fn bits(&self) -> Vec<u32> {
        match self {
            Self::Trees(diagrams) => diagrams.iter().flat_map(Diagram::bits).collect(),
            Self::Network(neurons) => neurons.iter().flat_map(Neuron::bits).collect(),
        }
    }

    fn selects(&self) -> usize {
        match self {
            Self::Trees(diagrams) => diagrams.iter().map(Diagram::selects).sum(),
            Self::Network(neurons) => neurons.iter().map(Neuron::selects).sum(),
        }
    }
}

/// As many diagrams as keep several threads at work; trees in one of them share their equal nodes.
pub(crate) fn diagrams(trees: &[super::model::Tree], bits: &[Range<u32>]) -> Vec<Diagram> {
    let share = trees.len().div_ceil(MOST_PARTS).max(1);
    trees.chunks(share).map(|trees| Diagram::new(trees, bits)).collect()
}

const MOST_PARTS: usize = 16;

/// An evaluation on one thread of the machine of this project's figures: each bit is transformed once, each CMux is a product.
fn cost(shape: &Shape, bits: usize, selects: usize) -> Duration {
    let (bit, select) = match shape.parameters {
        ParameterSet::K4N512TUniform17 => (35e-6, 9e-6),
        _ => (40e-6, 14e-6),
    };
    let levels = f64::from(shape.gadget.levels);
    Duration::from_secs_f64(1e-4 + (bits as f64 * bit + selects as f64 * select) * levels)
}

impl ChooserScratch {
    /// Memory for so many bits, made anew if there is none or it was for others.
    fn bits(&mut self, gate: &Gate, shape: &Shape, count: usize) -> &mut Bits {
        let fits = |(own, bits, _): &(Shape, usize, Bits)| {
            (own.parameters, own.gadget, *bits) == (shape.parameters, shape.gadget, count)
        };
        let fitting = self.bits.take().filter(fits);
        &mut self.bits.insert(fitting.unwrap_or_else(|| (*shape, count, gate.empty(count)))).2
    }
}

impl ChooserWorker {
    fn prepare(&mut self, gate: &Gate, shape: &Shape) {
        let fits = |(own, _): &(Shape, GateBuffers)| (own.parameters, own.gadget) == (shape.parameters, shape.gadget);
        if !self.buffers.as_ref().is_some_and(fits) {
            // Values of another ring have another length.
            *self = Self { buffers: Some((*shape, gate.buffers())), ..Self::default() };
        }
    }

    fn buffers(&mut self) -> &mut GateBuffers {
        self.buffers.as_mut().map(|(_, buffers)| buffers).expect("workers are prepared")
    }
}
