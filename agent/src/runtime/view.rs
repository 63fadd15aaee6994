//! A struct of the process, read at once, and its fields by name.

use crate::golang::layout::{self, Field, LayoutError, StructLayout, Structs, Wanted};
use crate::memory::{Fault, Memory, Request};

use super::RuntimeError;

/// Most bytes of a struct that are read. `runtime.p` has some 16 000, the largest; the debugging information of a hostile binary may
/// claim anything.
const MAX_STRUCT: u32 = 32 << 10;
/// Most bytes of structs that are read together.
const MAX_TOGETHER: usize = 256 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct View<'a> {
    layout: &'a StructLayout,
    bytes: Vec<u8>,
    from: u32,
    address: u64,
}

impl<'a> View<'a> {
    /// Reads what `wanted` names of the struct called `name` at `address`.
    pub fn read(
        memory: &dyn Memory,
        structs: &'a Structs,
        wanted: &Wanted,
        name: &'static str,
        address: u64,
    ) -> Result<Self, RuntimeError> {
        let mut views = Self::read_many(memory, structs, wanted, name, &[address])?;
        match views.pop().flatten() {
            Some(view) => Ok(view),
            None => Err(Fault::Unmapped { address, len: 0 }.into()),
        }
    }

    /// Reads several; `None` for those that cannot be read.
    pub fn read_many(
        memory: &dyn Memory,
        structs: &'a Structs,
        wanted: &Wanted,
        name: &'static str,
        addresses: &[u64],
    ) -> Result<Vec<Option<Self>>, RuntimeError> {
        let layout = structs.get(name).ok_or(LayoutError::NoStruct(name))?;
        let range = extent(structs, wanted, name, layout)?;
        if range.len().saturating_mul(addresses.len()) > MAX_TOGETHER {
            return Err(RuntimeError::Absurd { what: "the size of many structs", found: addresses.len() as u64 });
        }
        let mut views: Vec<Self> = addresses
            .iter()
            .map(|address| Self { layout, bytes: vec![0; range.len()], from: range.start, address: *address })
            .collect();
        let mut requests: Vec<Request<'_>> = views
            .iter_mut()
            .map(|view| Request {
                address: view.address.wrapping_add(u64::from(range.start)),
                buf: &mut view.bytes,
                ok: false,
            })
            .collect();
        memory.read_many(&mut requests)?;
        let served: Vec<bool> = requests.iter().map(|request| request.ok).collect();
        Ok(views.into_iter().zip(served).map(|(view, ok)| ok.then_some(view)).collect())
    }

    /// The number in a field of up to eight bytes; none where this version has no such field.
    pub fn get(&self, field: &str) -> Option<u64> {
        let field = self.layout.fields.get(field)?;
        let bytes = self.bytes_of(*field).filter(|bytes| bytes.len() <= 8)?;
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// As [`View::get`], of a field that every version has; 0 where it is missing all the same.
    pub fn number(&self, field: &str) -> u64 {
        self.get(field).unwrap_or(0)
    }

    /// As [`View::number`], of a signed field.
    pub fn signed(&self, field: &str) -> i64 {
        let bits = self.layout.fields.get(field).map_or(64, |field| field.size.saturating_mul(8).clamp(8, 64));
        let unused = 64 - bits;
        (self.number(field) << unused).cast_signed() >> unused
    }

    /// The words that a field is an array of.
    pub fn array(&self, field: &str) -> Option<Vec<u64>> {
        let bytes = self.bytes_of(*self.layout.fields.get(field)?)?;
        Some(words(bytes))
    }

    /// Where a field is in the process; none where this version has no such field.
    pub fn at(&self, field: &str) -> Option<u64> {
        Some(self.address.wrapping_add(u64::from(self.layout.fields.get(field)?.offset)))
    }

    /// Where the struct is.
    pub fn address(&self) -> u64 {
        self.address
    }

    fn bytes_of(&self, field: Field) -> Option<&[u8]> {
        let start = field.offset.checked_sub(self.from)? as usize;
        self.bytes.get(start..start.checked_add(field.size as usize)?)
    }
}

/// From the first to the last byte of a struct that is wanted, with all sizes checked.
fn extent(
    structs: &Structs,
    wanted: &Wanted,
    name: &'static str,
    layout: &StructLayout,
) -> Result<std::ops::Range<u32>, RuntimeError> {
    let fields = wanted.iter().find(|(structure, _)| *structure == name).map_or(&[][..], |(_, fields)| *fields);
    let (mut start, mut end) = (u32::MAX, 0);
    for (field, _) in fields {
        match layout::offset(structs, wanted, name, field) {
            Ok(offset) => {
                start = start.min(offset);
                end = end.max(offset + layout.fields.get(*field).map_or(0, |field| field.size));
            }
            Err(LayoutError::NoField { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if start > end || end - start > MAX_STRUCT {
        return Err(RuntimeError::Absurd { what: "the size of a struct", found: u64::from(end) });
    }
    Ok(start..end)
}

/// Bytes as the 64-bit words they are.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The word at each address; `None` where it cannot be read.
pub fn word(memory: &dyn Memory, addresses: &[u64]) -> Result<Vec<Option<u64>>, Fault> {
    let mut bytes = vec![[0u8; 8]; addresses.len()];
    let mut requests: Vec<Request<'_>> =
        bytes.iter_mut().zip(addresses).map(|(buf, address)| Request { address: *address, buf, ok: false }).collect();
    memory.read_many(&mut requests)?;
    let served: Vec<bool> = requests.iter().map(|request| request.ok).collect();
    Ok(bytes.into_iter().zip(served).map(|(bytes, ok)| ok.then(|| u64::from_le_bytes(bytes))).collect())
}
