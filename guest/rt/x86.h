/* SPDX-License-Identifier: MIT */
/*
 * The instructions that C has no words for: ports, MSRs, control registers, flags. The *_safe forms
 * report #GP instead of dying of it: irq.c looks the faulting address up in the .fixup table.
 */
#ifndef GUEST_X86_H
#define GUEST_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RFLAGS_IF        0x200u

#define MSR_TSC          0x010u
#define MSR_APIC_BASE    0x01bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_GS_BASE      0xc0000101u

/* A row of the .fixup table: a #GP at `at` continues at `to`. */
#define GP_FIXUP(at, to) ".pushsection .fixup,\"a\"\n.quad " at ", " to "\n.popsection\n"

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;

    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return ((uint64_t)hi << 32) | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

/* False: the access raised #GP. */
static inline bool rdmsr_safe(uint32_t msr, uint64_t *value)
{
    uint32_t lo, hi, bad;

    __asm__ volatile("1: rdmsr\n xor %k2, %k2\n jmp 3f\n"
                     "2: mov $1, %k2\n xor %%eax, %%eax\n xor %%edx, %%edx\n"
                     "3:\n" GP_FIXUP("1b", "2b")
                     : "=a"(lo), "=d"(hi), "=&r"(bad)
                     : "c"(msr)
                     : "memory", "cc");
    *value = ((uint64_t)hi << 32) | lo;
    return !bad;
}

static inline bool wrmsr_safe(uint32_t msr, uint64_t value)
{
    uint32_t bad;

    __asm__ volatile("1: wrmsr\n xor %k0, %k0\n jmp 3f\n"
                     "2: mov $1, %k0\n"
                     "3:\n" GP_FIXUP("1b", "2b")
                     : "=&r"(bad)
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory", "cc");
    return !bad;
}

static inline uint64_t read_cr8(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr8, %0" : "=r"(value) : : "memory");
    return value;
}

static inline void write_cr8(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

static inline bool write_cr8_safe(uint64_t value)
{
    uint32_t bad;

    __asm__ volatile("1: mov %1, %%cr8\n xor %k0, %k0\n jmp 3f\n"
                     "2: mov $1, %k0\n"
                     "3:\n" GP_FIXUP("1b", "2b")
                     : "=&r"(bad)
                     : "r"(value)
                     : "memory", "cc");
    return !bad;
}

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return ((uint64_t)hi << 32) | lo;
}

static inline uint64_t read_flags(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n popq %0" : "=r"(flags) : : "memory");
    return flags;
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* Interrupts are taken only from the HLT on: no wake-up fits between the two. [SDM3 7.8.1] */
static inline void sti_hlt_cli(void)
{
    __asm__ volatile("sti\n hlt\n cli" : : : "memory");
}

/* A store before it is visible to others before a later WRMSR sends an IPI. [SDM3 12.12.3] */
static inline void fence(void)
{
    __asm__ volatile("mfence\n lfence" : : : "memory");
}

static inline void lidt(const void *base, uint16_t limit)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {limit, (uint64_t)base};

    __asm__ volatile("lidt %0" : : "m"(idtr));
}

#endif
