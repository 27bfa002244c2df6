//! How numbers become bytes and back, without a cast over memory that a guest can change.

/// A value with a fixed layout on the wire.
pub trait Wire: Sized {
    /// Length in bytes.
    const SIZE: usize;

    /// Takes the value off the front of `bytes`, none where they are too few.
    fn take(bytes: &mut &[u8]) -> Option<Self>;

    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Wire for $kind {
            const SIZE: usize = size_of::<$kind>();

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                bytes.split_off(..Self::SIZE)?.try_into().ok().map(Self::from_le_bytes)
            }

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

number!(u16, u32, u64, i32, i64);

impl<T: Wire + Copy + Default, const N: usize> Wire for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut all = [T::default(); N];
        for one in &mut all {
            *one = T::take(bytes)?;
        }
        Some(all)
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|one| one.put(out));
    }
}

/// Declares a message: a structure whose fields follow each other on the wire without gaps.
macro_rules! message {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $kind,)*
        }

        impl $crate::virtio::fs::abi::Wire for $name {
            const SIZE: usize = 0 $(+ <$kind as $crate::virtio::fs::abi::Wire>::SIZE)*;

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::virtio::fs::abi::Wire::take(bytes)?,)* })
            }

            fn put(&self, out: &mut Vec<u8>) {
                $($crate::virtio::fs::abi::Wire::put(&self.$field, out);)*
            }
        }
    };
}

pub(super) use message;
