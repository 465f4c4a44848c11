//! From features to integers, and from integers to published logits.

use zeroize::Zeroizing;

use super::session::EncryptError;
use crate::bound::{power_of_ten, power_of_two};
use crate::description::{Description, Feature};

impl Description {
    /// x̃_j = round((x_j − c_j)/h_j · M) for every feature of every row, with c_j the centre and h_j the half width of the
    /// feature's range; so |x̃_j| ≤ M.
    pub fn encode(&self, rows: &[impl AsRef<[f64]>]) -> Result<Vec<Zeroizing<Vec<i64>>>, EncryptError> {
        rows.iter().enumerate().map(|(index, row)| self.encode_row(index, row.as_ref())).collect()
    }

    pub(crate) fn encode_row(&self, index: usize, row: &[f64]) -> Result<Zeroizing<Vec<i64>>, EncryptError> {
        let (expected, found) = (self.features().len(), row.len());
        if expected != found {
            return Err(EncryptError::WrongWidth { row: index, expected, found });
        }
        let scale = power_of_two(self.scale().features as i32);
        // Room for all from the start: a vector that grows leaves its old contents behind.
        let mut encoded = Zeroizing::new(Vec::with_capacity(expected));
        for (feature, &value) in self.features().iter().zip(row) {
            check_value(feature, index, value)?;
            encoded.push(((value - feature.centre()) / feature.half_width() * scale).round_ties_even() as i64);
        }
        Ok(encoded)
    }

    /// The published logit of an integer one, L·2^−(m+w), rounded to the description's decimals: the float64 nearest to that
    /// decimal number.
    pub fn publish(&self, logit: i64) -> f64 {
        let (ten, shift) = (power_of_ten(self.decimals()), self.scale().logit_bits());
        let decimal = ((i128::from(logit) * i128::from(ten)) + (1 << (shift - 1))) >> shift;
        decimal as f64 / ten as f64
    }
}

fn check_value(feature: &Feature, row: usize, value: f64) -> Result<(), EncryptError> {
    let (column, low, high) = (feature.name.clone(), feature.low, feature.high);
    match value {
        _ if !value.is_finite() => Err(EncryptError::NotFinite { row, column, value }),
        _ if !(low..=high).contains(&value) => Err(EncryptError::OutOfRange { row, column, value, low, high }),
        _ => Ok(()),
    }
}
