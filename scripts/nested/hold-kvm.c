/* Keeps one idle virtual machine for as long as it runs, in the nested machine, from its start.
 *
 * KVM patches the kernel's code (jump labels: preempt_notifier_key, apic_sw_disabled) when the first machine comes and
 * when the last one goes. For a moment an int3 stands in a hot path, and QEMU 7.2 may translate that on another
 * processor and keep the translation: "Oops: int3". While one machine is there nothing is patched. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    int machine = ioctl(kvm, KVM_CREATE_VM, 0);
    if (machine < 0 || ioctl(machine, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(machine, KVM_CREATE_VCPU, 0) < 0) {
        perror("/dev/kvm");
        return 1;
    }
    puts("held");
    fclose(stdout);
    for (;;) pause();
}
