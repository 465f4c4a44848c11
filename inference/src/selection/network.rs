//! Neurons over bits: tables that turn.
//!
//! A neuron's table holds what its activation adds to every logit, place by place, K + E coefficients each (E are zeros, for
//! the check). Turned by X^(−place·(K+E)), a polynomial has its place's entry on the first coefficients. By how much is
//! Σ turns_i over the bits that are set, and each turn is a CMux: the client's GGSW bits serve as a bootstrapping key.

use super::Shape;
use super::machine::{Machine, Space, add, subtract};
use super::model::Neuron;

impl Neuron {
    /// CMuxes.
    pub(crate) fn selects(&self) -> usize {
        self.turns.iter().filter(|&&turn| turn != 0).count()
    }

    /// The bits that it reads.
    pub(crate) fn bits(&self) -> impl Iterator<Item = u32> {
        self.turns.iter().enumerate().filter(|&(_, &turn)| turn != 0).map(|(bit, _)| bit as u32)
    }

    /// `sum` += what the table has at the place that bits say.
    pub(crate) fn run(
        &self,
        machine: &mut impl Machine,
        space: Space<'_>,
        shape: &Shape,
        [table, value, difference]: &mut [Vec<u64>; 3],
        sum: &mut [u64],
    ) {
        let stride = shape.outputs();
        [&mut *table, &mut *value, &mut *difference].into_iter().for_each(|words| words.resize(space.len(), 0));
        table.fill(0);
        for (entry, coefficients) in self.table.chunks(shape.logits).zip(table[space.body()..].chunks_mut(stride)) {
            coefficients.iter_mut().zip(entry).for_each(|(to, &entry)| *to = entry as u64);
        }
        space.rotate(table, self.start * stride as i64, value);
        for bit in self.bits().take_while(|_| !space.is_cancelled()) {
            space.rotate(value, self.turns[bit as usize] * stride as i64, difference);
            subtract(value, difference);
            machine.add_product(bit as usize, difference, value);
        }
        add(value, sum);
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::machine::Clear;
    use super::super::{Check, Gadget};
    use super::*;
    use crate::parameters::ParameterSet;

    #[test]
    fn a_table_is_read_where_the_bits_say() {
        let (gadget, check) = (Gadget { base: 16, levels: 2 }, Check { bits: 8, count: 2 });
        let parameters = ParameterSet::N2048TUniform17;
        let shape = Shape { parameters, gadget, check, bits: 4, logits: 3, reply_bits: 40 };
        let places = 2048 / 5;
        let table: Vec<i64> = (0..places * 3).map(|entry| entry * entry - 1000).collect();
        let neuron = Neuron { start: 100, table: table.clone(), turns: vec![-30, 0, 200, -70] };
        let space = Space { degree: 2048, masks: 0, cancelled: &AtomicBool::new(false) };
        for set in 0..16_usize {
            let bits: Vec<bool> = (0..4).map(|bit| set >> bit & 1 == 1).collect();
            let place =
                neuron.turns.iter().zip(&bits).filter(|(_, set)| **set).map(|(turn, _)| turn).sum::<i64>() + 100;
            let mut sum = vec![7; 2048];
            neuron.run(&mut Clear(bits), space, &shape, &mut Default::default(), &mut sum);
            let read: Vec<i64> = sum[..5].iter().map(|&word| word as i64 - 7).collect();
            assert_eq!(read[..3], table[place as usize * 3..][..3], "{set:b}");
            assert_eq!(read[3..], [0, 0], "where the check goes nothing else is");
        }
        assert_eq!((neuron.selects(), neuron.bits().collect::<Vec<_>>()), (3, vec![0, 2, 3]));
    }
}
