//! From features to integers, and from integers to published logits.

use zeroize::Zeroizing;

use super::error::EncryptError;
use crate::bound::power_of_ten;
use crate::description::{Description, Feature};
use crate::selection::Selection;
use crate::steps::Step;

impl Description {
    /// x̃_j = round((x_j − c_j)/h_j · M_j) for every feature of every row, with c_j the centre and h_j the half width of
    /// the feature's range; so |x̃_j| ≤ M_j. The x_j are the row's values after the model's [`steps`](Self::steps).
    pub fn encode(&self, rows: &[impl AsRef<[f64]>]) -> Result<Vec<Zeroizing<Vec<i64>>>, EncryptError> {
        rows.iter().enumerate().map(|(index, row)| self.encode_row(index, row.as_ref())).collect()
    }

    pub(crate) fn encode_row(&self, index: usize, row: &[f64]) -> Result<Zeroizing<Vec<i64>>, EncryptError> {
        let (expected, found) = (self.features().len(), row.len());
        if expected != found {
            return Err(EncryptError::WrongWidth { row: index, expected, found });
        }
        // What a vector that grows leaves behind is not erased: this one does not.
        let mut prepared = Zeroizing::new(row.to_vec());
        for step in self.steps() {
            step.apply(&mut prepared).map_err(|column| EncryptError::NotFinite {
                row: index,
                column: self.features()[column].name.clone(),
                value: prepared[column],
            })?;
        }
        self.encode_prepared(index, &prepared)
    }

    /// Encodes a row that has had all [`steps`](Self::steps), and one value per column.
    pub(crate) fn encode_prepared(&self, index: usize, row: &[f64]) -> Result<Zeroizing<Vec<i64>>, EncryptError> {
        let expected = self.features().len();
        if let Some(selection) = self.selection() {
            return self.encode_levels(index, row, selection);
        }
        let bits = self.scale().features;
        // Room for all from the start: a vector that grows leaves its old contents behind.
        let mut encoded = Zeroizing::new(Vec::with_capacity(expected));
        for (feature, &value) in self.features().iter().zip(row) {
            check_value(feature, index, value)?;
            let exact = (value - feature.centre()) / feature.half_width() * feature.reach(bits) as f64;
            let rounded = exact.round_ties_even();
            if (exact - rounded).abs() > feature.rounding(bits) {
                let (column, step, low) = (feature.name.clone(), feature.step.unwrap_or_default(), feature.low);
                return Err(EncryptError::OffGrid { row: index, column, value, low, step });
            }
            encoded.push(rounded as i64);
        }
        Ok(encoded)
    }

    /// The levels of a row for a model that chooses.
    fn encode_levels(
        &self,
        index: usize,
        row: &[f64],
        selection: &Selection,
    ) -> Result<Zeroizing<Vec<i64>>, EncryptError> {
        let mut levels = Zeroizing::new(Vec::with_capacity(row.len()));
        for ((feature, grid), &value) in self.features().iter().zip(&selection.grids).zip(row) {
            check_value(feature, index, value)?;
            let compared = if selection.single { f64::from(value as f32) } else { value };
            levels.push(grid.level(compared, feature.low, feature.high) as i64);
        }
        Ok(levels)
    }

    /// Moves the values of a row to the edges of their ranges; whether any was outside. A label of what is sent then says nothing
    /// certain about what was there. Shares of a norm are never outside.
    pub fn clip(&self, row: &mut [f64]) -> bool {
        let mut moved = false;
        if self.steps().iter().any(|step| !matches!(step, Step::Impute { .. })) {
            return moved;
        }
        for (value, feature) in row.iter_mut().zip(self.features()) {
            let inside = value.clamp(feature.low, feature.high);
            moved |= inside != *value && !value.is_nan();
            *value = inside;
        }
        moved
    }

    /// The published logit of an integer one, L·2^−(m+w), rounded to the description's decimals: the float64 nearest to
    /// that decimal number.
    pub fn publish(&self, logit: i128) -> f64 {
        let (ten, shift) = (power_of_ten(self.decimals()), self.scale().logit_bits());
        let decimal = (logit * i128::from(ten) + (1 << (shift - 1))) >> shift;
        decimal as f64 / ten as f64
    }
}

impl Feature {
    /// c, the middle of the range.
    pub(crate) fn centre(&self) -> f64 {
        0.5 * (self.low + self.high)
    }

    /// h, its half width; the larger half, so that no rounding takes (x − c)/h beyond ±1.
    pub(crate) fn half_width(&self) -> f64 {
        let centre = self.centre();
        (self.high - centre).max(centre - self.low)
    }
}

fn check_value(feature: &Feature, row: usize, value: f64) -> Result<(), EncryptError> {
    let Feature { low, high, ref name, .. } = *feature;
    if !value.is_finite() {
        return Err(EncryptError::NotFinite { row, column: name.clone(), value });
    }
    if !(low..=high).contains(&value) {
        return Err(EncryptError::OutOfRange { row, column: name.clone(), value, low, high });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::{sample, uniform};
    use crate::description::tests::feature;
    use crate::steps::{Norm, Step};

    #[test]
    fn no_value_in_range_leaves_the_unit_interval() {
        for (low, high) in [(0.1, 0.3), (-8.0, 1e-9), (1e9, 1e9 + 1.0), (0.1, 0.1 + f64::EPSILON), (-1e100, 1e100)] {
            let feature = feature("x", low, high);
            for x in [low, high, feature.centre(), low.next_up(), high.next_down()] {
                assert!(((x - feature.centre()) / feature.half_width()).abs() <= 1.0, "{x} in {low} to {high}");
            }
        }
    }

    /// A sample's features lie in −1 … 1, and its M is 2^30.
    #[test]
    fn features_become_multiples_of_their_half_width() {
        let description = sample(3, 2).description().clone();
        let encoded = description.encode(&[[-1.0, 0.0, 1.0], [0.5, -0.25, 1e-30]]).unwrap();
        assert_eq!(*encoded[0], [-1 << 30, 0, 1 << 30]);
        assert_eq!(*encoded[1], [1 << 29, -1 << 28, 0]);
    }

    #[test]
    fn clipped_rows_are_in_range_and_what_is_missing_stays_so() {
        let description = sample(3, 2).description().clone();
        let clip = |mut row: [f64; 3]| (description.clip(&mut row), row);
        assert_eq!(clip([-1.0, 0.5, 1.0]), (false, [-1.0, 0.5, 1.0]));
        assert_eq!(clip([-1.5, 0.5, f64::INFINITY]), (true, [-1.0, 0.5, 1.0]));
        let (moved, row) = clip([f64::NAN, 0.0, 0.0]);
        assert!(!moved && row[0].is_nan());
    }

    #[test]
    fn each_fault_has_its_error() {
        let description = sample(2, 2).description().clone();
        let error = |rows: &[&[f64]]| description.encode(rows).unwrap_err();
        assert_eq!(error(&[&[0.0, 0.0], &[0.0]]), EncryptError::WrongWidth { row: 1, expected: 2, found: 1 });
        assert_eq!(
            error(&[&[0.0, 1.5]]),
            EncryptError::OutOfRange { row: 0, column: "x1".into(), value: 1.5, low: -1.0, high: 1.0 }
        );
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(error(&[&[value, 0.0]]).code(), "not_finite");
        }
    }

    #[test]
    fn steps_come_before_ranges() {
        let with = |steps| sample(2, 2).description().with_steps(steps);
        let imputed = with(vec![Step::Impute { values: vec![Some(0.5), None] }]);
        let encoded =
            |description: &Description, row: [f64; 2]| description.encode(&[row]).map(|rows| rows[0].to_vec());
        assert_eq!(encoded(&imputed, [f64::NAN, 0.0]).unwrap(), [1 << 29, 0]);
        assert_eq!(encoded(&imputed, [0.0, f64::NAN]).unwrap_err().code(), "not_finite");
        let scale = Step::Scale { scale: vec![0.5, 0.25], offset: vec![0.0, -4.0] };
        let normalized = with(vec![scale, Step::Normalize(Norm::Max)]);
        assert_eq!(encoded(&normalized, [-80.0, 36.0]).unwrap(), [-1 << 30, 1 << 28], "-40 and 10, over 40");
        let missing = encoded(&normalized, [1.0, f64::NAN]).unwrap_err();
        assert!(matches!(missing, EncryptError::NotFinite { row: 0, column, .. } if column == "x1"));
    }

    /// Published is what a decimal rounding of the exact rational number gives, as the nearest float64.
    #[test]
    fn published_logits_are_decimals() {
        let description = sample(2, 2).description().clone();
        let shift = description.scale().logit_bits();
        assert_eq!((description.decimals(), shift), (3, 40));
        assert_eq!(description.publish(0), 0.0);
        assert_eq!(description.publish(-5 << 40), -5.0);
        assert_eq!(description.publish((1 << 40) / 3), 0.333);
        assert_eq!(description.publish(-(1 << 40) / 3), -0.333);
        for logit in uniform(1000, 1).into_iter().map(|word| word as i64) {
            let published = description.publish(logit.into());
            assert_eq!(published, format!("{published:.3}").parse::<f64>().unwrap(), "a float64 nearest to a decimal");
            let exact = logit as f64 / (1u64 << 40) as f64;
            assert!((published - exact).abs() <= 0.5e-3 + exact.abs() * f64::EPSILON, "{published} for {exact}");
        }
    }
}
