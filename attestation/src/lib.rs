//! Strict verification of AWS Nitro attestation documents: policy, statement, receipts and evidence
