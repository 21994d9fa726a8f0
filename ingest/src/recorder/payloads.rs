//! Memory of encoded batches, used again: a batch is some 100 kB, and new memory of that size costs the kernel's time to clear it,
//! more than encoding the batch.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::limits::{SPARE_PAYLOAD_BYTES, SPARE_PAYLOADS};

/// Where payloads come from and go back to.
#[derive(Clone, Debug, Default)]
pub(super) struct Payloads {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Payloads {
    /// An empty payload to write to.
    pub(super) fn take(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// The payload as it is sent about; its memory comes back when the last holder drops it.
    pub(super) fn seal(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Payload { bytes, home: self.clone() })
    }
}

struct Payload {
    bytes: Vec<u8>,
    home: Payloads,
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut spare = self.home.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_PAYLOADS && (1..=SPARE_PAYLOAD_BYTES).contains(&bytes.capacity()) {
            spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_within_its_bounds() {
        let payloads = Payloads::default();
        let mut bytes = payloads.take();
        bytes.extend_from_slice(&[7; 100]);
        let (place, sealed) = (bytes.as_ptr(), payloads.seal(bytes));
        let other_holder = sealed.slice(50..);
        drop(sealed);
        assert_eq!(other_holder[..], [7; 50]);
        drop(other_holder);
        let again = payloads.take();
        assert!(again.is_empty() && again.as_ptr() == place);
        let many: Vec<Bytes> = (0..2 * SPARE_PAYLOADS).map(|_| payloads.seal(vec![1])).collect();
        drop(many);
        drop(payloads.seal(vec![1; SPARE_PAYLOAD_BYTES + 1]));
        assert_eq!(payloads.spare.lock().unwrap().len(), SPARE_PAYLOADS);
    }
}
