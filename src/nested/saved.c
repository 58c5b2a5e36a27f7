/* SPDX-License-Identifier: MIT */
/*
 * The nested part of a vCPU's saved record (state.c): where it was, and what was copied of 12. Not
 * the shadows, pins, or what senders were told: those follow from it, so that a record loads on a
 * host with another strategy. What processors had posted into L0's descriptor is here too, for
 * there is no other place that the next host would look at.
 *
 * Whatever is loaded may be hostile: it passes the checks that 12 has to pass, and is refused else.
 */
#include "saved.h"
#include "../bytes.h"

/* Offsets in the part; what has no name is zero. */
enum part {
    PART_STATE = 0, /* enum saved_state */
    PART_KIND = 1,  /* enum vapic_accel_kind of 12; NONE: 12 virtualizes nothing of the APIC */
    PART_FLAGS = 2,
    PART_PASS = 8,
    PART_POSTED = PART_PASS + 64, /* Intel */
    PART_FIELDS = PART_POSTED + 32,
    PART_END = PART_FIELDS + 104,
};

_Static_assert(PART_END == NESTED_SAVED_SIZE, "as documented");

enum saved_state {
    SAVED_L1,
    SAVED_ENTERING,
    SAVED_L2,
    SAVED_STATES,
};

#define FLAG_PENDING       (1u << 0) /* Intel */
#define FLAG_L1_IF         (1u << 1) /* AMD */
#define FLAG_NESTED_PAGING (1u << 2) /* AMD */

/* A field of a structure, `bytes` wide, at its place in the part. */
struct field {
    uint16_t member, at, bytes;
};

#define FIELD12(name, offset, bytes)                                                               \
    {                                                                                              \
        offsetof(struct vapic_vmcs12, name), PART_FIELDS + offset, bytes                           \
    }

static const struct field vmcs12[] = {
    FIELD12(pin, 0, 4),
    FIELD12(primary, 4, 4),
    FIELD12(secondary, 8, 4),
    FIELD12(exit, 12, 4),
    FIELD12(tertiary, 16, 8),
    FIELD12(notification_vector, 24, 2),
    FIELD12(last_pid_index, 26, 2),
    FIELD12(interrupt_status, 28, 2),
    FIELD12(tpr_threshold, 32, 4),
    FIELD12(virtual_apic, 40, 8),
    FIELD12(apic_access, 48, 8),
    FIELD12(pid, 56, 8),
    FIELD12(pid_table, 64, 8),
    FIELD12(eoi_exit[0], 72, 8),
    FIELD12(eoi_exit[1], 80, 8),
    FIELD12(eoi_exit[2], 88, 8),
    FIELD12(eoi_exit[3], 96, 8),
};

#undef FIELD12
#define FIELD12(name, offset, bytes)                                                               \
    {                                                                                              \
        offsetof(struct vapic_nested_vcpu, vmcb12.name), PART_FIELDS + offset, bytes               \
    }

static const struct field vmcb12[] = {
    FIELD12(int_ctl, 0, 8),  FIELD12(bar, 8, 8),       FIELD12(backing, 16, 8),
    FIELD12(logical, 24, 8), FIELD12(physical, 32, 8), FIELD12(intercept3, 40, 4),
};

#undef FIELD12

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static uint64_t get_member(const void *from, const struct field *f)
{
    const uint8_t *p = (const uint8_t *)from + f->member;

    switch (f->bytes) {
    case 2:
        return *(const uint16_t *)(const void *)p;
    case 4:
        return *(const uint32_t *)(const void *)p;
    default:
        return *(const uint64_t *)(const void *)p;
    }
}

static void set_member(void *to, const struct field *f, uint64_t value)
{
    uint8_t *p = (uint8_t *)to + f->member;

    switch (f->bytes) {
    case 2:
        *(uint16_t *)(void *)p = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)(void *)p = (uint32_t)value;
        break;
    default:
        *(uint64_t *)(void *)p = value;
        break;
    }
}

static void put_fields(uint8_t *out, const void *from, const struct field *table, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put_le(out + table[i].at, get_member(from, &table[i]), table[i].bytes);
}

static void get_fields(void *to, const uint8_t *in, const struct field *table, size_t count)
{
    for (size_t i = 0; i < count; i++)
        set_member(to, &table[i], get_le(in + table[i].at, table[i].bytes));
}

/* ---- Saving ---- */

static enum saved_state saved_state(const struct vapic *v)
{
    switch (vapic_nested_state(v)) {
    case VAPIC_NESTED_ENTERING:
        return SAVED_ENTERING;
    case VAPIC_NESTED_L2:
        return SAVED_L2;
    case VAPIC_NESTED_RESTORED:
        return v->accel->nested->ran ? SAVED_L2 : SAVED_ENTERING;
    case VAPIC_NESTED_L1:
    case VAPIC_NESTED_LEAVING:
        break;
    }
    return SAVED_L1;
}

/* 12 as it would be left, with RVI and SVI, or V_TPR and V_IRQ, as they are now. */
static void save_vmcs12(uint8_t *out, const struct vapic_nested_vcpu *nv,
                        const struct vapic_nested_left *left)
{
    struct vapic_vmcs12 c = nv->vmcs12;

    c.interrupt_status = left->interrupt_status;
    put_fields(out, &c, vmcs12, COUNT(vmcs12));
    for (uint32_t i = 0; i < 4; i++)
        put_le(out + PART_POSTED + 8 * i, vapic_load64(&nv->posted.pir[i], VAPIC_ACQUIRE), 8);
}

static void save_vmcb12(uint8_t *out, const struct vapic_nested_vcpu *nv,
                        const struct vapic_nested_left *left)
{
    put_fields(out, nv, vmcb12, COUNT(vmcb12));
    put_le(out + PART_FIELDS,
           (nv->vmcb12.int_ctl & ~left->int_ctl_mask) | (left->int_ctl & left->int_ctl_mask), 8);
}

static uint32_t flags(const struct vapic_nested_vcpu *nv, enum vapic_accel_kind kind)
{
    if (kind == VAPIC_ACCEL_APICV)
        return vapic_load32(&nv->pending, VAPIC_ACQUIRE) ? FLAG_PENDING : 0;
    return (nv->l1_if ? FLAG_L1_IF : 0) | (nv->vmcb12.nested_paging ? FLAG_NESTED_PAGING : 0);
}

bool vapic_nested_save(struct vapic *v, uint8_t *out)
{
    enum saved_state state = saved_state(v);
    struct vapic_nested_left left = {0};
    const struct vapic_nested_vcpu *nv;
    enum vapic_accel_kind kind;

    if (state == SAVED_L1)
        return false;
    out[PART_STATE] = (uint8_t)state;
    if (!nested_virtualized(v))
        return true;
    nv = v->accel->nested;
    kind = v->vm->accel->kind;
    out[PART_KIND] = (uint8_t)kind;
    out[PART_FLAGS] = (uint8_t)flags(nv, kind);
    for (uint32_t i = 0; i < 4; i++) {
        put_le(out + PART_PASS + 8 * i, nv->pass.read[i], 8);
        put_le(out + PART_PASS + 32 + 8 * i, nv->pass.write[i], 8);
    }
    nested_ops(v)->peek(v, &left);
    if (kind == VAPIC_ACCEL_APICV)
        save_vmcs12(out, nv, &left);
    else
        save_vmcb12(out, nv, &left);
    return true;
}

/* ---- Loading ---- */

/* Bytes of `in` that no field of the table covers. */
static bool others_are_zero(const uint8_t *in, const struct field *table, size_t count)
{
    for (uint32_t at = PART_FIELDS; at < PART_END; at++) {
        bool covered = false;

        for (size_t i = 0; i < count; i++)
            covered |= at >= table[i].at && at < table[i].at + table[i].bytes;
        if (!covered && in[at] != 0)
            return false;
    }
    return true;
}

static bool is_zero(const uint8_t *in, uint32_t from, uint32_t to)
{
    while (from < to && in[from] == 0)
        from++;
    return from == to;
}

static bool well_formed(const struct vapic *v, const uint8_t *in)
{
    uint32_t kind = in[PART_KIND], allowed = FLAG_PENDING;

    if (in[PART_STATE] == SAVED_L1 || in[PART_STATE] >= SAVED_STATES ||
        !is_zero(in, PART_FLAGS + 1, PART_PASS))
        return false;
    if (kind == VAPIC_ACCEL_NONE)
        return is_zero(in, PART_FLAGS, PART_END);
    /* Of this host, which gives L2 what it had. */
    if (nested_of(v) == NULL || kind != (uint32_t)v->vm->accel->kind)
        return false;
    if (kind == VAPIC_ACCEL_AVIC) {
        allowed = FLAG_L1_IF | FLAG_NESTED_PAGING;
        return !(in[PART_FLAGS] & ~allowed) && is_zero(in, PART_POSTED, PART_FIELDS) &&
               others_are_zero(in, vmcb12, COUNT(vmcb12));
    }
    return !(in[PART_FLAGS] & ~allowed) && others_are_zero(in, vmcs12, COUNT(vmcs12));
}

static struct vapic_msr_pass loaded_pass(const uint8_t *in)
{
    struct vapic_msr_pass pass;

    for (uint32_t i = 0; i < 4; i++) {
        pass.read[i] = get_le(in + PART_PASS + 8 * i, 8);
        pass.write[i] = get_le(in + PART_PASS + 32 + 8 * i, 8);
    }
    return pass;
}

/* The descriptor of L0's is the current L2's before its pages are known. */
static void load_posts(struct vapic_nested_vcpu *nv, const uint8_t *in)
{
    uint64_t any = 0;

    for (uint32_t i = 0; i < 4; i++) {
        uint64_t bits = get_le(in + PART_POSTED + 8 * i, 8);

        vapic_store64(&nv->posted.pir[i], bits, VAPIC_RELAXED);
        any |= bits;
    }
    vapic_store32(&nv->pending, in[PART_FLAGS] & FLAG_PENDING ? 1 : 0, VAPIC_SEQ_CST);
    vapic_store32(&nv->named, any != 0, VAPIC_SEQ_CST);
    if (any != 0)
        vapic_or64(&nv->posted.control, PID_ON, VAPIC_SEQ_CST);
}

static int load_vmcs12(struct vapic *v, const uint8_t *in, bool ran)
{
    struct vapic_msr_pass pass = loaded_pass(in);
    struct vapic_vmcs12 c = {0};
    struct vapic_nested_view view = {.vmcs12 = &c, .pass = &pass};
    int result;

    get_fields(&c, in, vmcs12, COUNT(vmcs12));
    result = vapic_nested_restore(v, &view, ran);
    if (result == VAPIC_OK)
        load_posts(v->accel->nested, in);
    return result;
}

static int load_vmcb12(struct vapic *v, const uint8_t *in, bool ran)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    get_fields(nv, in, vmcb12, COUNT(vmcb12));
    nv->vmcb12.nested_paging = (in[PART_FLAGS] & FLAG_NESTED_PAGING) != 0;
    nv->l1_if = (in[PART_FLAGS] & FLAG_L1_IF) != 0;
    nv->pass = loaded_pass(in);
    return vapic_nested_restore_copied(v, ran);
}

int vapic_nested_load_saved(struct vapic *v, const uint8_t *in)
{
    bool ran = in[PART_STATE] == SAVED_L2;
    int result;

    if (!well_formed(v, in))
        return VAPIC_E_FORMAT;
    if (in[PART_KIND] == VAPIC_ACCEL_NONE)
        result = vapic_nested_restore(v, NULL, ran);
    else if (in[PART_KIND] == VAPIC_ACCEL_APICV)
        result = load_vmcs12(v, in, ran);
    else
        result = load_vmcb12(v, in, ran);
    return result == VAPIC_OK ? VAPIC_OK : VAPIC_E_FORMAT;
}
