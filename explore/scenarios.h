/* SPDX-License-Identifier: MIT */
/*
 * The scenarios of this build, in the order of --list. Each is a `const struct ex_scenario
 * scenario_<name>` in the file that its line names; scenarios.c makes the table of them.
 */
#ifndef VAPIC_EXPLORE_SCENARIOS_H
#define VAPIC_EXPLORE_SCENARIOS_H

#include "explore.h"

#define EX_SCENARIOS(X)                                                                            \
    /* scenarios_software.c */                                                                     \
    X(post_to_sleeper)                                                                             \
    X(post_to_runner)                                                                              \
    X(two_posts)                                                                                   \
    X(post_behind_post)                                                                            \
    X(same_vector_again)                                                                           \
    X(ipis_cross)                                                                                  \
    X(ping_pong)                                                                                   \
    X(broadcast_to_two)                                                                            \
    X(mode_switch)                                                                                 \
    X(level_served_twice)                                                                          \
    X(level_raised_again)                                                                          \
    X(edge_and_unmask)                                                                             \
    X(nmi_and_post)                                                                                \
    X(nmi_to_sleeper)                                                                              \
    X(init_and_post)                                                                               \
    X(extint_and_window)                                                                           \
    X(timer_and_sleep)                                                                             \
    X(tpr_and_post)                                                                                \
    X(hotplug_and_broadcast)                                                                       \
    X(remove_and_msi)                                                                              \
    X(pv_eoi_and_post)                                                                             \
    X(pv_ipi_to_sleeper)                                                                           \
    /* scenarios_avic.c */                                                                         \
    X(ipi_to_sleeper)

#define X(name) extern const struct ex_scenario scenario_##name;
EX_SCENARIOS(X)
#undef X

#endif
