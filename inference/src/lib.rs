//! Encrypted inference shared by both ends: parameters, quantisation, packing, evaluation and the model bundle
