//! What a client does to a row in clear, before it encrypts it.
//!
//! Not all of a pipeline is linear. The steps here keep the columns that they are given, so that a client can take them
//! itself. Their parameters are in the model's public description.

use serde::{Deserialize, Serialize};

/// A step of preparation, over all columns of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Step {
    /// Missing values are filled in, as scikit-learn's SimpleImputer does.
    Impute {
        /// What a NaN becomes, for each column; without one it is refused.
        values: Vec<Option<f64>>,
    },
    /// (x − offset)·scale, which has to come before a norm is taken.
    Scale {
        /// For each column.
        scale: Vec<f64>,
        /// For each column, in its unit.
        offset: Vec<f64>,
    },
    /// Each row is divided by its norm, as scikit-learn's Normalizer does; a row of zeros stays.
    Normalize(Norm),
}

/// The size of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Σ_j |x_j|.
    L1,
    /// √Σ_j x_j².
    L2,
    /// max_j |x_j|.
    Max,
}

impl Step {
    /// Whether it has parameters for as many columns, all of them numbers.
    pub(crate) fn fits(&self, columns: usize) -> bool {
        let finite = |values: &[f64]| values.len() == columns && values.iter().all(|value| value.abs() <= LARGEST);
        match self {
            Self::Impute { values } => {
                values.len() == columns && values.iter().flatten().all(|value| value.abs() <= LARGEST)
            }
            Self::Scale { scale, offset } => finite(scale) && finite(offset),
            Self::Normalize(_) => true,
        }
    }

    /// Takes the step; the index of a column whose value it cannot be taken with otherwise.
    #[cfg(feature = "client")]
    pub(crate) fn apply(&self, row: &mut [f64]) -> Result<(), usize> {
        match self {
            Self::Impute { values } => {
                for (x, value) in row.iter_mut().zip(values) {
                    *x = value.filter(|_| x.is_nan()).unwrap_or(*x);
                }
                Ok(())
            }
            Self::Scale { scale, offset } => {
                for ((x, scale), offset) in row.iter_mut().zip(scale).zip(offset) {
                    *x = (*x - offset) * scale;
                }
                Ok(())
            }
            Self::Normalize(norm) => norm.divide(row),
        }
    }
}

#[cfg(feature = "client")]
impl Norm {
    fn divide(self, row: &mut [f64]) -> Result<(), usize> {
        if let Some(index) = row.iter().position(|x| x.is_nan() || x.abs() > LARGEST) {
            return Err(index);
        }
        let Some((index, largest)) = row.iter().map(|x| x.abs()).enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))
        else {
            return Ok(());
        };
        if largest == 0.0 {
            return Ok(());
        }
        // The square of less would lose its precision.
        if largest < 1.0 / LARGEST {
            return Err(index);
        }
        let size = match self {
            Self::L1 => row.iter().map(|x| x.abs()).sum(),
            Self::L2 => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
            Self::Max => largest,
        };
        // A rounding takes no share beyond ±1.
        row.iter_mut().for_each(|x| *x = (*x / size).clamp(-1.0, 1.0));
        Ok(())
    }
}

/// Far enough from the ends of float64 that no square over- or underflows.
const LARGEST: f64 = 1e100;

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    fn applied(step: &Step, row: &[f64]) -> Result<Vec<f64>, usize> {
        let mut row = row.to_vec();
        step.apply(&mut row).map(|()| row)
    }

    #[test]
    fn only_missing_values_are_filled_in() {
        let step = Step::Impute { values: vec![Some(7.0), None, Some(-1.0)] };
        let filled = applied(&step, &[f64::NAN, f64::NAN, 3.0]).unwrap();
        assert!(filled[0] == 7.0 && filled[1].is_nan() && filled[2] == 3.0, "{filled:?}");
    }

    #[test]
    fn rows_are_scaled_and_divided_by_their_norm() {
        let step = Step::Scale { scale: vec![2.0, 0.5], offset: vec![1.0, -3.0] };
        assert_eq!(applied(&step, &[2.0, 1.0]).unwrap(), [2.0, 2.0]);
        let divided = |norm, row: &[f64]| applied(&Step::Normalize(norm), row);
        assert_eq!(divided(Norm::L1, &[1.0, -3.0]).unwrap(), [0.25, -0.75]);
        assert_eq!(divided(Norm::L2, &[3.0, -4.0]).unwrap(), [0.6, -0.8]);
        assert_eq!(divided(Norm::Max, &[1.0, -4.0]).unwrap(), [0.25, -1.0]);
        assert_eq!(divided(Norm::L2, &[0.0, 0.0]).unwrap(), [0.0, 0.0]);
        assert_eq!(divided(Norm::L2, &[1e90, 0.0]).unwrap(), [1.0, 0.0]);
        for (row, column) in [([1.0, f64::NAN], 1), ([f64::INFINITY, 1.0], 0), ([1e-200, 1e-199], 1), ([0.0, 1e101], 1)]
        {
            assert_eq!(divided(Norm::L2, &row), Err(column));
        }
    }

    #[test]
    fn steps_fit_their_columns() {
        assert!(Step::Impute { values: vec![None, Some(1.0)] }.fits(2));
        assert!(!Step::Impute { values: vec![None, Some(f64::NAN)] }.fits(2));
        assert!(!Step::Impute { values: vec![None] }.fits(2));
        assert!(Step::Scale { scale: vec![1.0], offset: vec![0.0] }.fits(1));
        assert!(!Step::Scale { scale: vec![1.0], offset: vec![] }.fits(1));
        assert!(!Step::Scale { scale: vec![f64::INFINITY], offset: vec![0.0] }.fits(1));
        assert!(Step::Normalize(Norm::Max).fits(9));
    }
}
