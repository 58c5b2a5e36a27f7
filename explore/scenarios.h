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
    X(ipi_to_sleeper)                                                                              \
    X(ipi_to_sleeper_x2apic)                                                                       \
    X(ipi_to_runner)                                                                               \
    X(ipi_and_move)                                                                                \
    X(ipi_and_preemption)                                                                          \
    X(ipi_to_sleeper_off_cpu)                                                                      \
    X(sleeper_off_cpu)                                                                             \
    X(logical_to_two)                                                                              \
    X(logical_and_ldr)                                                                             \
    X(logical_and_no_ldr)                                                                          \
    X(ldr_then_logical)                                                                            \
    X(iommu_to_sleeper)                                                                            \
    X(iommu_without_log)                                                                           \
    X(iommu_to_runner)                                                                             \
    X(iommu_and_preemption)                                                                        \
    X(attach_to_sleeper)                                                                           \
    X(attach_and_move)                                                                             \
    X(iommu_and_inhibition)                                                                        \
    X(log_overflows)                                                                               \
    X(log_outlives_vm)                                                                             \
    X(page_fault_and_withdrawal)                                                                   \
    X(level_to_runner)                                                                             \
    X(two_windows)                                                                                 \
    X(stale_running)                                                                               \
    /* scenarios_situations.c */                                                                   \
    X(page_in_x2apic_mode)                                                                         \
    X(update_under_l2)                                                                             \
    X(eoi_trap)                                                                                    \
    X(ipi_to_l2)                                                                                   \
    X(wide_id)                                                                                     \
    X(id_restored)                                                                                 \
    /* scenarios_inhibit.c */                                                                      \
    X(inhibit_and_add)                                                                             \
    X(inhibit_and_restored_l2)                                                                     \
    X(inhibit_a_runner)                                                                            \
    X(inhibit_a_sleeper)                                                                           \
    X(inhibit_the_preempted)                                                                       \
    X(inhibit_and_ipi)                                                                             \
    X(permit_and_ipi)                                                                              \
    X(two_administrators)                                                                          \
    X(mode_and_inhibit)                                                                            \
    X(two_ldr_changes)                                                                             \
    X(window_and_reason)                                                                           \
    X(page_comes_back)                                                                             \
    X(waiter_and_lock)                                                                             \
    X(device_while_inhibited)                                                                      \
    /* scenarios_apicv.c */                                                                        \
    X(off_while_pending)                                                                           \
    X(on_while_in_service)                                                                         \
    X(tpr_across_switch)                                                                           \
    X(sleeper_with_if_clear)                                                                       \
    X(route_and_service)                                                                           \
    X(two_devices)                                                                                 \
    X(post_and_device)                                                                             \
    X(level_and_switch)                                                                            \
    X(device_and_move)                                                                             \
    X(self_ipi_under_tpr)                                                                          \
    /* scenarios_mutants.c */                                                                      \
    X(level_and_poke)                                                                              \
    X(nmi_and_extint)                                                                              \
    X(two_lives)                                                                                   \
    X(sipi_of_before)                                                                              \
    X(inhibited_posts)                                                                             \
    X(level_and_unmask)                                                                            \
    X(level_to_nobody)                                                                             \
    X(moves_between_chains)                                                                        \
    X(hotplug_and_nmi)                                                                             \
    X(ldr_of_nobody)                                                                               \
    X(ldr_is_shared)                                                                               \
    X(ipi_to_removed)                                                                              \
    X(id_is_shared)                                                                                \
    X(apic_off_and_on)                                                                             \
    X(tpr_by_msr)                                                                                  \
    X(page_under_a_peer)                                                                           \
    X(page_stays_away)                                                                             \
    X(window_and_reset)                                                                            \
    X(window_is_closed)                                                                            \
    X(reason_of_both)                                                                              \
    X(pv_eoi_of_level)                                                                             \
    X(pv_eoi_and_poke)                                                                             \
    X(list_left_twice)                                                                             \
    X(silent_post_before_sleep)                                                                    \
    /* scenarios_map.c */                                                                          \
    X(leaves_by_dfr)                                                                               \
    X(joins_a_chain)                                                                               \
    X(ldr_there_and_back)                                                                          \
    X(x2apic_and_physical)                                                                         \
    X(x2apic_and_logical)                                                                          \
    X(id_is_taken)                                                                                 \
    X(added_and_scanned)                                                                           \
    X(added_by_hash)                                                                               \
    X(added_inside_the_hash)                                                                       \
    X(removed_and_added)                                                                           \
    /* scenarios_data.c */                                                                         \
    X(data_behind_nmi)                                                                             \
    X(data_behind_smi)                                                                             \
    X(data_behind_init)                                                                            \
    X(data_behind_sipi)                                                                            \
    X(data_behind_extint)                                                                          \
    X(data_behind_lint)                                                                            \
    X(data_behind_timer)                                                                           \
    X(data_behind_edge)                                                                            \
    X(data_behind_level)                                                                           \
    X(data_behind_watch)                                                                           \
    X(ioapic_attached)                                                                             \
    /* scenarios_nested.c */                                                                       \
    X(nested_entry_and_post)                                                                       \
    X(nested_exit_and_post)                                                                        \
    X(nested_and_toggle)                                                                           \
    X(nested_in_service)                                                                           \
    X(nested_and_lift)                                                                             \
    X(nested_notified_entering)                                                                    \
    X(nested_notified_leaving)                                                                     \
    X(nested_notified_and_post)                                                                    \
    X(nested_notified_sleeper)                                                                     \
    X(nested_dummy_and_running)                                                                    \
    X(nested_dummy_to_sleeper)                                                                     \
    X(nested_shadow_and_running)                                                                   \
    X(nested_shadow_to_sleeper)                                                                    \
    X(nested_shadow_and_preemption)                                                                \
    X(nested_shadow_and_exit)                                                                      \
    X(nested_entry_is_freed)                                                                       \
    X(nested_entry_and_unmap)                                                                      \
    X(nested_table_is_freed)                                                                       \
    X(nested_restored_and_update)

#define X(name) extern const struct ex_scenario scenario_##name;
EX_SCENARIOS(X)
#undef X

#endif
