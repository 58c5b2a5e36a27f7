/* SPDX-License-Identifier: MIT */
/*
 * The smallest hypervisor: a program without libc that links libvapic and lets one vCPU interrupt
 * another. tools/check-freestanding.sh builds it with -ffreestanding -nostdlib, which proves that
 * the library needs four memory functions and nothing else, and runs it: its exit status is the
 * number of the first step that went wrong, 0 when none did.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vapic/vapic.h"

#define VCPUS        2u
#define PAGE         4096u
#define VECTOR       0x51u
#define SYSCALL_EXIT 60L

/* Volatile, so that no compiler replaces the loops by calls of the functions they are in. */
void *memcpy(void *to, const void *from, size_t size)
{
    volatile unsigned char *t = to;
    const volatile unsigned char *f = from;

    while (size--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    volatile unsigned char *t = to;
    const volatile unsigned char *f = from;

    if ((uintptr_t)to <= (uintptr_t)from)
        return memcpy(to, from, size);
    while (size--)
        t[size] = f[size];
    return to;
}

void *memset(void *to, int value, size_t size)
{
    volatile unsigned char *t = to;

    while (size--)
        *t++ = (unsigned char)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const volatile unsigned char *x = a;
    const volatile unsigned char *y = b;

    for (; size; size--, x++, y++) {
        unsigned char left = *x;
        unsigned char right = *y;

        if (left != right)
            return left < right ? -1 : 1;
    }
    return 0;
}

static struct vapic_vm vm;
static struct vapic vcpu[VCPUS];
static unsigned char page[VCPUS][PAGE] __attribute__((aligned(PAGE)));
static unsigned char memory[1u << 20] __attribute__((aligned(64)));
static unsigned notified;

static void nothing(void *ctx)
{
    (void)ctx;
}

static void count_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    (void)ctx;
    (void)action;
    if (target == &vcpu[1])
        notified++;
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = nothing,
    .unlock = nothing,
    .quiesce = nothing,
    .notify = count_notify,
};

static void write_reg(struct vapic *v, uint32_t offset, uint32_t value)
{
    const struct vapic_now now = {.ns = 1};

    vapic_mmio_write(v, offset, &value, sizeof(value), now);
}

static bool setup(void)
{
    const struct vapic_vm_config config = {.max_vcpus = VCPUS};
    size_t need = vapic_vm_memory(&config);

    if (need == 0 || need > sizeof(memory) ||
        vapic_vm_init(&vm, sizeof(vm), &config, &host, NULL, memory, need) != VAPIC_OK)
        return false;
    for (uint32_t n = 0; n < VCPUS; n++) {
        const struct vapic_config one = {.id = n, .bsp = n == 0};

        if (vapic_init(&vcpu[n], sizeof(vcpu[n]), &vm, &one, page[n]) != VAPIC_OK ||
            vapic_add(&vcpu[n]) != VAPIC_OK)
            return false;
        write_reg(&vcpu[n], APIC_SVR, 0x1FFu);
    }
    return true;
}

/* What vCPU 1 should do next, when it can take an interrupt. */
static void enter(struct vapic_entry *entry)
{
    const struct vapic_now now = {.ns = 2};

    vapic_enter(&vcpu[1], VAPIC_CAN_IRQ | VAPIC_CAN_INIT | VAPIC_IF, now, entry);
}

/* Brings vCPU 1 to life as an operating system does: INIT, then SIPI, from vCPU 0. */
static bool start_second(void)
{
    struct vapic_entry entry;

    write_reg(&vcpu[0], APIC_ICR2, 1u << 24);
    write_reg(&vcpu[0], APIC_ICR, 0x4500u);
    enter(&entry);
    if (entry.event != VAPIC_CPU_INIT)
        return false;
    enter(&entry);
    write_reg(&vcpu[0], APIC_ICR, 0x4610u);
    enter(&entry);
    if (entry.event != VAPIC_CPU_SIPI || entry.vector != 0x10u)
        return false;
    write_reg(&vcpu[1], APIC_SVR, 0x1FFu);
    enter(&entry);
    return entry.runnable && entry.inject == VAPIC_INJECT_NONE;
}

static bool interrupt_second(void)
{
    struct vapic_entry entry;
    unsigned before = notified;

    write_reg(&vcpu[0], APIC_ICR, VECTOR);
    enter(&entry);
    if (notified == before || entry.inject != VAPIC_INJECT_VECTOR || entry.vector != VECTOR)
        return false;
    vapic_commit(&vcpu[1], &entry);
    vapic_exit(&vcpu[1], entry.cr8, true);
    write_reg(&vcpu[1], APIC_EOI, 0);
    enter(&entry);
    return entry.inject == VAPIC_INJECT_NONE;
}

static long first_failure(void)
{
    bool (*const steps[])(void) = {setup, start_second, interrupt_second};

    for (size_t n = 0; n < sizeof(steps) / sizeof(steps[0]); n++) {
        if (!steps[n]())
            return (long)n + 1;
    }
    return vapic_api_version() == VAPIC_API_VERSION ? 0 : 100;
}

void _start(void);

/* The kernel enters with a stack that is aligned for a jump, not for a call. */
__attribute__((force_align_arg_pointer, noreturn)) void _start(void)
{
    long status = first_failure();

    for (;;)
        __asm__ volatile("syscall" : : "a"(SYSCALL_EXIT), "D"(status) : "rcx", "r11", "memory");
}
