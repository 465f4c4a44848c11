//! Coefficient packing: where features and logits sit in one polynomial.
//!
//! With d features and K classes, row r puts feature j on coefficient r·dK + j·K and encryptions of zero everywhere
//! else. The weight polynomial is W(X) = Σ ω_cj X^((d−1−j)·K + c), so that W·m has the logit of class c, Σ_j ω_cj x̃_j,
//! on coefficient r·dK + (d−1)·K + c (coefficient packing, as in Cheetah, USENIX Security 2022, section 3.1.1). Rows
//! exactly dK apart never meet: an output sums coefficients r·dK + j·K + (c − c'), and |c − c'| < K reaches no other
//! feature, wrap included.
//!
//! An output therefore depends on body coefficients −(K−1) … R·dK−1 only, indices taken mod N. They are the *window*,
//! and are all of the body that a request carries.

use crate::parameters::ParameterSet;

/// The shape of a model in one polynomial: everything that sizes and positions follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) parameters: ParameterSet,
    features: usize,
    classes: usize,
}

impl Packing {
    /// `None` if a row does not fit: d·K > N, or there is nothing to pack.
    pub(crate) fn new(parameters: ParameterSet, features: usize, classes: usize) -> Option<Self> {
        let row = features.checked_mul(classes)?;
        (1..=parameters.polynomial_size().0).contains(&row).then_some(Self { parameters, features, classes })
    }

    /// N.
    pub(crate) fn degree(&self) -> usize {
        self.parameters.polynomial_size().0
    }

    /// K.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// dK: from one row to the next, and the number of weights.
    pub(crate) fn row(&self) -> usize {
        self.features * self.classes
    }

    /// ⌊N / dK⌋, the rows of one request.
    pub(crate) fn capacity(&self) -> usize {
        self.degree() / self.row()
    }

    /// The coefficients before zero that the window starts with: K − 1.
    pub(crate) fn lead(&self) -> usize {
        self.classes - 1
    }

    /// The window's length, R·dK + K − 1.
    pub(crate) fn window(&self, rows: usize) -> usize {
        rows * self.row() + self.lead()
    }

    /// The body coefficients that travel: the window, or all N if it wraps onto itself.
    pub(crate) fn bodies(&self, rows: usize) -> usize {
        self.window(rows).min(self.degree())
    }

    /// The logits that travel back: R·K.
    pub(crate) fn logits(&self, rows: usize) -> usize {
        rows * self.classes
    }

    /// The coefficient of feature `feature` of row `row`.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn input(&self, row: usize, feature: usize) -> usize {
        row * self.row() + feature * self.classes
    }

    /// The coefficient of the first logit of row `row`; the others follow it.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn output(&self, row: usize) -> usize {
        row * self.row() + (self.features - 1) * self.classes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SET: ParameterSet = ParameterSet::N2048TUniform17;

    #[test]
    fn a_row_must_fit() {
        assert!(Packing::new(SET, 1024, 2).is_some());
        assert!(Packing::new(SET, 1025, 2).is_none());
        assert!(Packing::new(SET, usize::MAX, 2).is_none());
        assert!(Packing::new(SET, 0, 3).is_none());
    }

    /// The claim of the module's text, by brute force: whatever W·m adds into an output is that row's feature or a
    /// zero.
    #[test]
    fn outputs_meet_their_own_row_and_zeros_only() {
        for (features, classes) in [(4, 3), (1, 2), (5, 7), (2, 512), (1024, 2), (1, 2048), (3, 682)] {
            let packing = Packing::new(SET, features, classes).unwrap();
            let degree = packing.degree() as isize;
            let inputs: HashSet<usize> =
                (0..packing.capacity()).flat_map(|r| (0..features).map(move |j| packing.input(r, j))).collect();
            for (row, class) in (0..packing.capacity()).flat_map(|r| (0..classes).map(move |c| (r, c))) {
                for (feature, other) in (0..features).flat_map(|j| (0..classes).map(move |c| (j, c))) {
                    let exponent = (features - 1 - feature) * classes + other;
                    let met = packing.output(row) as isize + class as isize - exponent as isize;
                    assert!((-(packing.lead() as isize)..(packing.capacity() * packing.row()) as isize).contains(&met));
                    let met = met.rem_euclid(degree) as usize;
                    assert_eq!(met == packing.input(row, feature), other == class);
                    assert!(other == class || !inputs.contains(&met));
                }
            }
        }
    }
}
