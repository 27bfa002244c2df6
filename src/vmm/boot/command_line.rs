//! The kernel's command line, which also tells it where the devices are: there is no bus that it could ask.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::layout::{COMMAND_LINE, COMMAND_LINE_MAX, DEVICE_SIZE};

/// What every guest gets: how to end the machine (there is no ACPI: by the keyboard controller's reset line), that a panic
/// ends it at once, and what not to look for.
///
/// `no_timer_check`: a hypervisor's timer need not be tested. `random.trust_cpu`: RDRAND is the host's. `tsc=reliable` is
/// not here: whether it is, is said by the clock that KVM offers.
const ALWAYS: &str = "reboot=k panic=-1 pci=off acpi=off i8042.noaux i8042.nomux i8042.dumbkbd i8042.nopnp \
                      8250.nr_uarts=1 no_timer_check random.trust_cpu=on";

/// A command line that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
}

impl CommandLine {
    /// What every guest gets, and then the caller's words. Without a `console=` among them there is no output.
    pub fn new(extra: &str) -> Result<Self> {
        if let Some(bad) = extra.chars().find(|c| c.is_control()) {
            return Err(Error::Config(format!("the kernel's command line has the control character {bad:?}")));
        }
        let mut line = Self { text: ALWAYS.to_owned() };
        line.push(extra)?;
        Ok(line)
    }

    /// Tells of a virtio-mmio device (drivers/virtio/virtio_mmio.c, "Example of usage").
    pub fn push_device(&mut self, address: u64, irq: u32) -> Result<()> {
        self.push(&format!("virtio_mmio.device={}K@{address:#x}:{irq}", DEVICE_SIZE >> 10))
    }

    fn push(&mut self, words: &str) -> Result<()> {
        // Words behind a lone `--` go to init, so what is for the kernel goes before it.
        let (kernel, init) = match self.text.split_once(" -- ") {
            Some((kernel, init)) => (kernel.to_owned(), Some(init.to_owned())),
            None => (self.text.clone(), None),
        };
        let mut text = if words.is_empty() { kernel } else { format!("{kernel} {words}") };
        if let Some(init) = init {
            text = format!("{text} -- {init}");
        }
        if text.len() >= COMMAND_LINE_MAX {
            return Err(Error::Config(format!(
                "the kernel's command line has {} bytes, the kernel reads at most {}",
                text.len(),
                COMMAND_LINE_MAX - 1
            )));
        }
        self.text = text;
        Ok(())
    }

    /// As the kernel will see it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its length in the guest, with the final zero.
    pub(super) fn write(&self, ram: &GuestMemoryMmap) -> Result<()> {
        ram.write_slice(self.text.as_bytes(), GuestAddress(COMMAND_LINE))?;
        ram.write_obj(0_u8, GuestAddress(COMMAND_LINE + self.text.len() as u64))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ALWAYS, CommandLine};

    #[test]
    fn devices_are_told_before_the_words_for_init() {
        let mut line = CommandLine::new("quiet -- one two").unwrap();
        line.push_device(0xc000_1000, 6).unwrap();
        assert_eq!(line.as_str(), format!("{ALWAYS} quiet virtio_mmio.device=4K@0xc0001000:6 -- one two"));
    }

    #[test]
    fn what_the_kernel_would_cut_off_is_refused() {
        let error = CommandLine::new(&"x".repeat(2048)).unwrap_err().to_string();
        assert!(error.contains("at most 2047"), "{error}");
        assert!(CommandLine::new("a\nb").is_err());
        let mut line = CommandLine::new("").unwrap();
        for index in 0..crate::layout::DEVICES_MAX {
            line.push_device(crate::layout::device(index), crate::layout::device_irq(index)).unwrap();
        }
    }
}
