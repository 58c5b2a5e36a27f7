/* SPDX-License-Identifier: MIT */
/* See nested_cost.h. */
#include "nested_cost.h"

#define VCPUS       4u

#define AMD_ALL     (VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC)
#define INTEL_POSTS (VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED)
#define INTEL_ALL   (INTEL_POSTS | VAPIC_NESTED_IPIV)
#define BOTH        (VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC)

const struct nested_cost_world nested_cost_worlds[COST_WORLDS] = {
    {"AMD, software",
     COST_SOFTWARE,
     {.kind = VAPIC_ACCEL_AVIC, .features = BOTH, .offered = AMD_ALL}},
    {"AVIC, dummy",
     COST_DUMMY,
     {.kind = VAPIC_ACCEL_AVIC, .features = BOTH, .offered = AMD_ALL, .l2 = NX_L2_AVIC}},
    {"AVIC, shadow",
     COST_SHADOW,
     {.kind = VAPIC_ACCEL_AVIC,
      .features = BOTH,
      .offered = AMD_ALL,
      .l2 = NX_L2_AVIC,
      .strategy = VAPIC_NESTED_SHADOW}},
    {"x2AVIC, dummy",
     COST_DUMMY,
     {.kind = VAPIC_ACCEL_AVIC, .features = BOTH, .offered = AMD_ALL, .l2 = NX_L2_X2AVIC}},
    {"x2AVIC, shadow",
     COST_SHADOW,
     {.kind = VAPIC_ACCEL_AVIC,
      .features = BOTH,
      .offered = AMD_ALL,
      .l2 = NX_L2_X2AVIC,
      .strategy = VAPIC_NESTED_SHADOW}},
    {"Intel, software",
     COST_SOFTWARE,
     {.kind = VAPIC_ACCEL_APICV, .features = VAPIC_ACCEL_IPIV, .offered = INTEL_ALL}},
    {"APICv",
     COST_SOFTWARE,
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = INTEL_ALL,
      .l2 = NX_L2_APICV}},
    {"APICv, posted",
     COST_SOFTWARE,
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = INTEL_ALL,
      .l2 = NX_L2_POSTED}},
    {"IPIv, dummy",
     COST_DUMMY,
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = INTEL_ALL,
      .l2 = NX_L2_IPIV}},
    {"IPIv, shadow",
     COST_SHADOW,
     {.kind = VAPIC_ACCEL_APICV,
      .features = VAPIC_ACCEL_IPIV,
      .offered = INTEL_ALL,
      .l2 = NX_L2_IPIV,
      .strategy = VAPIC_NESTED_SHADOW}},
};

static bool by_msr(const struct nx *nx)
{
    return (vapic_base(&nx->l2[0]->apic) & APIC_BASE_EXTD) != 0;
}

static struct nx *start(const struct nested_cost_world *world)
{
    struct nx_options options = world->options;
    struct nx *nx;

    options.vcpus = VCPUS;
    nx = nx_new(&options);
    for (uint32_t n = 0; n < VCPUS && !by_msr(nx); n++) {
        nx_l2_write(nx, n, APIC_DFR, 0xFFFFFFFF);
        nx_l2_write(nx, n, APIC_LDR, 1u << (24 + n));
    }
    nx_settle(nx);
    for (uint32_t n = 0; n < VCPUS; n++)
        assert_true(nx_in_l2(nx, n));
    return nx;
}

static void send(struct nx *nx, enum nested_cost_kind kind, uint8_t vector, uint32_t from,
                 uint32_t to)
{
    static const uint32_t icr[COST_KINDS] = {0, APIC_ICR_LOGICAL, APIC_ICR_ALL_EXCL, APIC_ICR_SELF};
    uint32_t dest = kind == COST_LOGICAL ? 1u << to : kind == COST_PHYSICAL ? to : 0;

    nx_l2_ipi(nx, from, APIC_DM_FIXED | APIC_ICR_ASSERT | icr[kind] | vector, dest);
    nx_settle(nx);
}

static void look(const struct nx *nx, uint8_t vector, struct nested_cost *cost)
{
    uint32_t l2 = nx_exits(nx, NX_ANY, NX_ANY_CODE, true);

    cost->l2_exits += l2;
    cost->exits += l2 + nx_exits(nx, NX_ANY, NX_ANY_CODE, false);
    cost->reflected += nx_reflected(nx, NX_ANY, NX_ANY_CODE);
    cost->delivered += nx_l2_delivered(nx, NX_ANY, vector);
}

static void end_all(struct nx *nx, uint8_t vector)
{
    for (uint32_t n = 0; n < VCPUS; n++)
        if (nx_l2_bit(nx, n, APIC_ISR, vector))
            nx_l2_eoi(nx, n);
    nx_settle(nx);
}

struct nested_cost nested_cost(const struct nested_cost_world *world, enum nested_cost_kind kind,
                               uint32_t count)
{
    struct nested_cost cost = {0};
    struct nx *nx = start(world);

    for (uint32_t i = 0; i < count; i++) {
        uint8_t vector = (uint8_t)(0x30 + i % 0xB0);

        nx_forget(nx);
        send(nx, kind, vector, i % VCPUS, (i + 1 + i / VCPUS % (VCPUS - 1)) % VCPUS);
        look(nx, vector, &cost);
        end_all(nx, vector);
    }
    nx_free(nx);
    return cost;
}
