//! The error ledger: how far a published logit may be from scikit-learn's, and why decryption cannot fail.
//!
//! Every term is a worst case, none a likelihood. The noise is TUniform and so bounded; roundings are bounded by
//! nature.
//!
//! Notation: N is the ring's degree, M = 2^m the scale of features, dw = 2^−w that of weights, b the bits of a
//! coefficient in the reply; ω and B are the integer weights and biases, ‖ω‖₁ the sum over *all* of them, because every
//! output adds up encryptions under every weight. An integer logit L stands for L·2^−(m+w).

use std::fmt;

use crate::parameters::ParameterSet;

/// The scales of a quantised model, all powers of two and given by their exponents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// m: a feature at the end of its range is ±2^m.
    pub features: u32,
    /// w: a weight is a multiple of 2^−w.
    pub weights: i32,
    /// b: the leading bits of a coefficient that a reply carries.
    pub reply: u32,
}

impl Scale {
    /// m + w: an integer logit L stands for L·2^−(m+w).
    pub(crate) fn logit_bits(self) -> i32 {
        self.features as i32 + self.weights
    }

    /// The logit that the integer 1 stands for.
    pub(crate) fn unit(self) -> f64 {
        power_of_two(-self.logit_bits())
    }
}

/// 2^`exponent`, exactly.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    assert!((-1022..=1023).contains(&exponent), "scales are far from the ends of float64");
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// A linear model in integers: logit c is Σ_j ω_cj x̃_j + B_c.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntegerModel {
    /// ω, one row per class.
    pub(crate) weights: Vec<Vec<i64>>,
    /// B, at the scale of a logit.
    pub(crate) biases: Vec<i64>,
}

impl IntegerModel {
    /// ‖ω‖₁ over all classes.
    pub(crate) fn norm(&self) -> u128 {
        self.weights.iter().map(|row| norm(row)).sum()
    }

    /// P = max_c Σ_j |ω_cj|·M + |B_c|, the largest integer logit within the declared ranges.
    pub(crate) fn largest_logit(&self, scale: Scale) -> u128 {
        let reach = |(row, bias): (&Vec<i64>, &i64)| (norm(row) << scale.features) + u128::from(bias.unsigned_abs());
        self.weights.iter().zip(&self.biases).map(reach).max().unwrap_or(0)
    }

    /// The largest decrypted value of an honest evaluation: P, the noise, and the rounding of the reply.
    pub(crate) fn limit(&self, scale: Scale, parameters: ParameterSet) -> u128 {
        self.largest_logit(scale) + self.noise(parameters) + switch_error(scale.reply, parameters)
    }

    /// ‖ω‖₁·(2^t + 2^15), the most that the noise and the rounding of the bodies move an output.
    pub(crate) fn noise(&self, parameters: ParameterSet) -> u128 {
        self.norm() * u128::from(parameters.body_error())
    }
}

/// ‖ω‖₁ of one class.
fn norm(row: &[i64]) -> u128 {
    row.iter().map(|weight| u128::from(weight.unsigned_abs())).sum()
}

/// (N + 1)·2^(63−b): the reply's roundings of the mask, which a binary secret can add up N times, and of the output
/// itself.
pub(crate) fn switch_error(bits: u32, parameters: ParameterSet) -> u128 {
    (parameters.polynomial_size().0 as u128 + 1) << (63 - bits)
}

/// A limit under 2^63 is what makes decryption certain: no sum wraps.
pub(crate) const LOGIT_ROOM: u128 = 1 << 63;

/// The errors that only whoever folded the model can know; a bundle states them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StatedErrors {
    pub(crate) export: f64,
    pub(crate) arithmetic: f64,
}

/// Where the bound on |published logit − scikit-learn's float64 logit| comes from. All terms are logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorLedger {
    /// Rounding each feature to a multiple of 1/M of its half range: ½·‖ω‖₁·dw/M.
    pub feature_quantisation: f64,
    /// Rounding each weight to a multiple of dw, d of them at a full range: ½·d·dw, and the bias: ½·dw/M.
    pub weight_quantisation: f64,
    /// The noise of the encryption and the 16 bits that a body leaves out: ‖ω‖₁·(2^17 + 2^15)·dw/M.
    pub encryption_noise: f64,
    /// Sending b bits of each coefficient of the reply: (N + 1)·2^(63−b)·dw/M.
    pub modulus_switch: f64,
    /// The float32 parameters of the ONNX file, each within one ulp of scikit-learn's float64, through the folding.
    pub export: f64,
    /// Rounding of float64: in the folding, in the client, and in scikit-learn's own sum.
    pub arithmetic: f64,
    /// Publishing k decimals, since the lower bits carry noise: ½·10^−k.
    pub publication: f64,
}

impl ErrorLedger {
    pub(crate) fn new(
        model: &IntegerModel,
        scale: Scale,
        parameters: ParameterSet,
        decimals: u32,
        stated: StatedErrors,
    ) -> Self {
        let unit = scale.unit();
        let features = model.weights.first().map_or(0, Vec::len);
        Self {
            feature_quantisation: 0.5 * model.norm() as f64 * unit,
            weight_quantisation: 0.5 * features as f64 * power_of_two(-scale.weights) + 0.5 * unit,
            encryption_noise: model.noise(parameters) as f64 * unit,
            modulus_switch: switch_error(scale.reply, parameters) as f64 * unit,
            export: stated.export,
            arithmetic: stated.arithmetic,
            publication: publication_error(decimals),
        }
    }

    /// The terms by name, in the order in which they arise.
    pub fn terms(&self) -> [(&'static str, f64); 7] {
        let Self {
            feature_quantisation,
            weight_quantisation,
            encryption_noise,
            modulus_switch,
            export,
            arithmetic,
            publication,
        } = *self;
        [
            ("export", export),
            ("weight quantisation", weight_quantisation),
            ("feature quantisation", feature_quantisation),
            ("encryption noise", encryption_noise),
            ("modulus switch", modulus_switch),
            ("float64 arithmetic", arithmetic),
            ("publication", publication),
        ]
    }

    /// The bound: the sum of all terms, rounded up by far more than the roundings of this sum.
    pub fn total(&self) -> f64 {
        self.terms().into_iter().map(|(_, term)| term).sum::<f64>() * (1.0 + power_of_two(-44))
    }
}

impl fmt::Display for ErrorLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, term) in self.terms() {
            writeln!(f, "{name:<20} {term:.3e}")?;
        }
        write!(f, "{:<20} {:.3e}", "bound", self.total())
    }
}

/// ½·10^−k.
pub(crate) fn publication_error(decimals: u32) -> f64 {
    0.5 / power_of_ten(decimals) as f64
}

/// 10^`decimals`, exact as a float64 too.
pub(crate) fn power_of_ten(decimals: u32) -> i64 {
    assert!(decimals <= MAX_DECIMALS, "a description has at most {MAX_DECIMALS} decimals");
    10_i64.pow(decimals)
}

/// As many decimals as a float64 holds of any logit below 1.
pub(crate) const MAX_DECIMALS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    const SET: ParameterSet = ParameterSet::N2048TUniform17;

    #[test]
    fn powers_are_exact() {
        assert_eq!(power_of_two(0), 1.0);
        assert_eq!(power_of_two(-44) * power_of_two(44), 1.0);
        assert_eq!(power_of_two(62), (1u64 << 62) as f64);
        assert_eq!(power_of_ten(15) as f64, 1e15);
    }

    #[test]
    fn the_terms_are_the_formulas() {
        let model = IntegerModel { weights: vec![vec![3, -5], vec![0, 7]], biases: vec![-11, 1 << 20] };
        let scale = Scale { features: 10, weights: 4, reply: 30 };
        let stated = StatedErrors { export: 0.25, arithmetic: 0.125 };
        let ledger = ErrorLedger::new(&model, scale, SET, 1, stated);
        let unit = 1.0 / f64::from(1 << 14);
        assert_eq!(ledger.feature_quantisation, 7.5 * unit);
        assert_eq!(ledger.weight_quantisation, 1.0 / 16.0 + unit / 2.0);
        assert_eq!(ledger.encryption_noise, 15.0 * f64::from((1 << 17) + (1 << 15)) * unit);
        assert_eq!(ledger.modulus_switch, 2049.0 * (1u64 << 33) as f64 * unit);
        assert_eq!((ledger.export, ledger.arithmetic, ledger.publication), (0.25, 0.125, 0.05));
        assert_eq!(model.largest_logit(scale), 7 * 1024 + (1 << 20));
        assert_eq!(model.limit(scale, SET), 7 * 1024 + (1 << 20) + 15 * 163_840 + (2049 << 33));
    }
}
