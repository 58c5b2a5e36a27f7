/* SPDX-License-Identifier: MIT */
/*
 * The guest: does the operations of the case one after another and says what came of each. Every
 * operation is one instruction (two with STI) whose ends are noted beforehand, so that the host can
 * tell a fault-like exit from a trap-like one. An exit ends the operation; the host lets the guest
 * begin anew with the next one.
 */
#include "program.h"

/* Notes the ends: of the instruction at 1: that ends at 2:. */
#define NOTE                                                                                       \
    "lea 1f(%%rip), %%r11\n mov %%r11, %[before]\n"                                                \
    "lea 2f(%%rip), %%r11\n mov %%r11, %[behind]\n"
#define ENDS [before] "=m"(run.before), [behind] "=m"(run.behind)

static uint64_t read_page(const struct case_op *op)
{
    const void *at = (const void *)(ACCESS_PAGE + op->at);
    uint64_t v = 0;

    switch (op->size) {
    case 1:
        __asm__ volatile(NOTE "1: movb (%[at]), %b[v]\n2:"
                         : ENDS, [v] "+r"(v)
                         : [at] "r"(at)
                         : "r11", "memory");
        break;
    case 2:
        __asm__ volatile(NOTE "1: movw (%[at]), %w[v]\n2:"
                         : ENDS, [v] "+r"(v)
                         : [at] "r"(at)
                         : "r11", "memory");
        break;
    case 4:
        __asm__ volatile(NOTE "1: movl (%[at]), %k[v]\n2:"
                         : ENDS, [v] "+r"(v)
                         : [at] "r"(at)
                         : "r11", "memory");
        break;
    case 8:
        __asm__ volatile(NOTE "1: movq (%[at]), %[v]\n2:"
                         : ENDS, [v] "+r"(v)
                         : [at] "r"(at)
                         : "r11", "memory");
        break;
    default:
        __asm__ volatile(NOTE "1: movups (%[at]), %%xmm0\n2: movq %%xmm0, %[v]"
                         : ENDS, [v] "+r"(v)
                         : [at] "r"(at)
                         : "r11", "memory");
        break;
    }
    return v;
}

static void write_page(const struct case_op *op)
{
    void *at = (void *)(ACCESS_PAGE + op->at);
    uint64_t v = op->value;

    switch (op->size) {
    case 1:
        __asm__ volatile(NOTE "1: movb %b[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory");
        break;
    case 2:
        __asm__ volatile(NOTE "1: movw %w[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory");
        break;
    case 4:
        __asm__ volatile(NOTE "1: movl %k[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory");
        break;
    case 8:
        __asm__ volatile(NOTE "1: movq %[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory");
        break;
    default:
        __asm__ volatile("movq %[v], %%xmm0\n" NOTE "1: movups %%xmm0, (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory");
        break;
    }
}

static void or_page(const struct case_op *op)
{
    void *at = (void *)(ACCESS_PAGE + op->at);
    uint64_t v = op->value;

    switch (op->size) {
    case 1:
        __asm__ volatile(NOTE "1: orb %b[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory", "cc");
        break;
    case 2:
        __asm__ volatile(NOTE "1: orw %w[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory", "cc");
        break;
    case 4:
        __asm__ volatile(NOTE "1: orl %k[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory", "cc");
        break;
    default:
        __asm__ volatile(NOTE "1: orq %[v], (%[at])\n2:"
                         : ENDS
                         : [v] "r"(v), [at] "r"(at)
                         : "r11", "memory", "cc");
        break;
    }
}

static void move_page(const struct case_op *op)
{
    void *to = (void *)(ACCESS_PAGE + op->at);
    const void *from = (const void *)(ACCESS_PAGE + op->value);

    switch (op->size) {
    case 1:
        __asm__ volatile(NOTE "1: movsb\n2:" : ENDS, "+D"(to), "+S"(from) : : "r11", "memory");
        break;
    case 2:
        __asm__ volatile(NOTE "1: movsw\n2:" : ENDS, "+D"(to), "+S"(from) : : "r11", "memory");
        break;
    case 4:
        __asm__ volatile(NOTE "1: movsl\n2:" : ENDS, "+D"(to), "+S"(from) : : "r11", "memory");
        break;
    default:
        __asm__ volatile(NOTE "1: movsq\n2:" : ENDS, "+D"(to), "+S"(from) : : "r11", "memory");
        break;
    }
}

static uint64_t read_msr(const struct case_op *op)
{
    uint32_t lo, hi;

    __asm__ volatile(NOTE "1: rdmsr\n2:"
                     : ENDS, "=a"(lo), "=d"(hi)
                     : "c"(op->at)
                     : "r11", "memory");
    return (uint64_t)hi << 32 | lo;
}

static void write_msr(const struct case_op *op)
{
    __asm__ volatile(NOTE "1: wrmsr\n2:"
                     : ENDS
                     : "c"(op->at), "a"((uint32_t)op->value), "d"((uint32_t)(op->value >> 32))
                     : "r11", "memory");
}

/* RAX in all: exit 28 tells the register, and the model says RAX. */
static uint64_t read_cr8(void)
{
    uint64_t v;

    __asm__ volatile(NOTE "1: mov %%cr8, %%rax\n2:" : ENDS, "=a"(v) : : "r11", "memory");
    return v;
}

static void write_cr8(const struct case_op *op)
{
    __asm__ volatile(NOTE "1: mov %%rax, %%cr8\n2:" : ENDS : "a"(op->value) : "r11", "memory");
}

static void enable(void)
{
    __asm__ volatile(NOTE "1: sti\n nop\n2:" : ENDS : : "r11", "memory");
}

static void disable(void)
{
    __asm__ volatile(NOTE "1: cli\n2:" : ENDS : : "r11", "memory");
}

static void halt(const struct case_op *op)
{
    if (op->at)
        __asm__ volatile(NOTE "sti\n1: hlt\n2:" : ENDS : : "r11", "memory");
    else
        __asm__ volatile(NOTE "1: hlt\n2:" : ENDS : : "r11", "memory");
}

static void walk(const struct case_op *op)
{
    const void *at = (const void *)(WALKED + op->at / 8 * 4096);
    uint64_t v;

    __asm__ volatile(NOTE "1: movl (%[at]), %k[v]\n2:"
                     : ENDS, [v] "=r"(v)
                     : [at] "r"(at)
                     : "r11", "memory");
}

static void store(const struct case_op *op)
{
    virtual_apic[op->at / 4] = (uint32_t)op->value;
}

/* As enable(), with the stack elsewhere. */
static void enable_on(uint64_t stack)
{
    __asm__ volatile(NOTE "mov %%rsp, %%rbx\n mov %[at], %%rsp\n"
                          "1: sti\n nop\n2: mov %%rbx, %%rsp"
                     : ENDS
                     : [at] "r"(stack)
                     : "r11", "rbx", "memory");
}

/* True when `value` was read. */
static bool operate(const struct case_op *op, uint64_t *value)
{
    switch (op->code) {
    case OP_READ:
        *value = read_page(op);
        return true;
    case OP_RDMSR:
        *value = read_msr(op);
        return true;
    case OP_READ_CR8:
        *value = read_cr8();
        return true;
    case OP_WRITE:
        write_page(op);
        break;
    case OP_OR:
        or_page(op);
        break;
    case OP_MOVS:
        move_page(op);
        break;
    case OP_WRMSR:
        write_msr(op);
        break;
    case OP_WRITE_CR8:
        write_cr8(op);
        break;
    case OP_STI:
        enable();
        break;
    case OP_CLI:
        disable();
        break;
    case OP_HLT:
        halt(op);
        break;
    case OP_PUSH:
        enable_on(ACCESS_PAGE + op->at);
        break;
    case OP_WALK:
        walk(op);
        break;
    case OP_WALK_PUSH:
        enable_on(WALKED + (uint64_t)op->at / 8 * 4096 + 4096);
        break;
    case OP_STORE:
        store(op);
        break;
    default:
        break;
    }
    return false;
}

void l2_main(void)
{
    while (run.next < run.c.count) {
        uint64_t value;

        if (operate(&run.c.ops[run.next++], &value))
            outcome_value(&run.outcome, value);
        else
            outcome_done(&run.outcome);
    }
    for (;;)
        __asm__ volatile("vmcall" : : : "memory");
}
