/* SPDX-License-Identifier: MIT */
/* Modelled acceleration: the modes, building, and vCPUs on modelled processors; see accel.h. */
#include "accel.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

#define PAGE            4096u
#define LEAF_SVM        0x8000000au
#define FAMILY_ZEN      0x17u /* Zen, Zen+, Zen 2 */
#define FAMILY_HYGON    0x18u
#define EXC_ACKNOWLEDGE (VMX_EXC_MUST | VMX_EXC_ACK_INTERRUPT)
#define EPTP_WRITE_BACK 0x1eu /* 4 levels, write-back */
#define EPTP_BASE       0x1000u

const char *const vmm_accel_names[] = {"none",  "avic",       "avic-noipiv", "x2avic",
                                       "apicv", "apicv-ipiv", NULL};

_Static_assert(sizeof(vmm_accel_names) / sizeof(char *) == VMM_ACCEL_MODES + 1, "one per mode");

static const struct mode {
    enum vapic_accel_kind kind;
    uint32_t features;
    struct vapic_sil_config silicon;
} modes[VMM_ACCEL_MODES] = {
    [VMM_ACCEL_AVIC] = {VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV, {.vendor = VAPIC_SIL_AMD}},
    [VMM_ACCEL_AVIC_NOIPIV] = {VAPIC_ACCEL_AVIC, 0, {.vendor = VAPIC_SIL_AMD}},
    [VMM_ACCEL_X2AVIC] = {VAPIC_ACCEL_AVIC,
                          VAPIC_ACCEL_X2AVIC | VAPIC_ACCEL_X2AVIC_EXT | VAPIC_ACCEL_IPIV,
                          {.vendor = VAPIC_SIL_AMD, .x2avic = true, .x2avic_ext = true}},
    [VMM_ACCEL_APICV] = {VAPIC_ACCEL_APICV,
                         0,
                         {.vendor = VAPIC_SIL_INTEL,
                          .absent_tertiary = VMX_TER_IPI_VIRTUALIZATION}},
    [VMM_ACCEL_APICV_IPIV] = {VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV, {.vendor = VAPIC_SIL_INTEL}},
};

bool vmm_accel_honours(enum vmm_accel_mode mode, enum vapic_inhibit reason)
{
    static const struct {
        bool avic, apicv;
    } rows[VAPIC_INHIBIT_COUNT] = {
#define VMM_X(name, number, avic, apicv, text) [number] = {(avic) != 0, (apicv) != 0},
        VAPIC_INHIBITS(VMM_X)
#undef VMM_X
    };

    if (mode == VMM_ACCEL_NONE) {
        return false;
    }
    return modes[mode].kind == VAPIC_ACCEL_APICV ? rows[reason].apicv : rows[reason].avic;
}

/* ---------------------------------------------------------------------------------------------- */
/* The host's own processor                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* Is `word` in the first line of `text` that begins with `label`? */
static bool listed(const char *text, const char *label, const char *word)
{
    const char *line = strstr(text, label);
    size_t length = strlen(word);
    const char *end;

    if (line == NULL) {
        return false;
    }
    end = line + strcspn(line, "\n");
    for (const char *at = line; (at = strstr(at, word)) != NULL && at < end; at += length) {
        if ((at[-1] == ' ' || at[-1] == '\t') && (at[length] == ' ' || at + length >= end)) {
            return true;
        }
    }
    return false;
}

/* Family in CPUID 1:EAX [APM3 E.3.2]. */
static uint32_t family_of(uint32_t signature)
{
    uint32_t base = signature >> 8 & 0xf;

    return base == 0xf ? base + (signature >> 20 & 0xff) : base;
}

/* With erratum 1235 a processor may miss that a vCPU has stopped running, and lose its IPI. */
static enum vmm_accel_mode judge_avic(uint32_t svm_edx, uint32_t signature)
{
    uint32_t family = family_of(signature);

    if (family == FAMILY_ZEN || family == FAMILY_HYGON) {
        return VMM_ACCEL_AVIC_NOIPIV;
    }
    return (svm_edx & SVM_CPUID_EDX_X2AVIC) != 0 ? VMM_ACCEL_X2AVIC : VMM_ACCEL_AVIC;
}

/* Linux names VMX's features in a line of their own; "apicv" there is APIC-register virtualization
 * with virtual-interrupt delivery. */
enum vmm_accel_mode vmm_accel_judge_host(const char *cpuinfo, uint32_t svm_edx, uint32_t signature)
{
    bool posted =
        listed(cpuinfo, "vmx flags", "apicv") && listed(cpuinfo, "vmx flags", "posted_intr");

    if ((svm_edx & SVM_CPUID_EDX_AVIC) != 0) {
        return judge_avic(svm_edx, signature);
    }
    if (!posted) {
        return VMM_ACCEL_NONE;
    }
    return listed(cpuinfo, "vmx flags", "ipi_virt") ? VMM_ACCEL_APICV_IPIV : VMM_ACCEL_APICV;
}

enum vmm_accel_mode vmm_accel_host_mode(char *why, size_t size)
{
    char text[16384];
    FILE *file = fopen("/proc/cpuinfo", "re");
    size_t length = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
    uint32_t eax, ebx, ecx, edx = 0, signature = 0;
    enum vmm_accel_mode mode;

    if (file != NULL) {
        fclose(file);
    }
    text[length] = '\0';
    if (!__get_cpuid(LEAF_SVM, &eax, &ebx, &ecx, &edx)) {
        edx = 0;
    }
    if (!__get_cpuid(1, &signature, &ebx, &ecx, &eax)) {
        signature = 0;
    }
    mode = vmm_accel_judge_host(text, edx, signature);
    snprintf(why, size, "%s",
             mode == VMM_ACCEL_NONE ? "this processor has neither AVIC nor APICv with posted "
                                      "interrupts"
                                    : "as this processor has it");
    return mode;
}

/* ---------------------------------------------------------------------------------------------- */
/* Building                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* The arena: one scratch page, the library's tables, then per vCPU a VMCB and a map. */
static uint64_t vcpu_bytes(const struct vmm_accel *a)
{
    return a->intel ? PAGE : VMCB_SIZE + SVM_MSRPM_SIZE;
}

static int make_memory(struct vmm_machine *m, struct vmm_accel *a, size_t tables,
                       struct vmm_err *err)
{
    uint64_t tables_rounded = (tables + PAGE - 1) / PAGE * PAGE;
    unsigned cpus = m->config.cpus;
    void *arena;

    a->arena_size = PAGE + tables_rounded + cpus * vcpu_bytes(a);
    arena = mmap(NULL, a->arena_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    a->arena = arena != MAP_FAILED ? arena : NULL;
    a->vcpus = calloc(cpus, sizeof(*a->vcpus));
    a->pcpus = calloc(a->pcpu_count, sizeof(*a->pcpus));
    a->sil_cpus = calloc(a->pcpu_count, sizeof(struct vapic_sil_cpu *));
    a->free = calloc(a->pcpu_count, sizeof(struct vmm_accel_pcpu *));
    if (a->arena == NULL || a->vcpus == NULL || a->pcpus == NULL || a->sil_cpus == NULL ||
        a->free == NULL || !vmm_timeline_init(&a->timeline)) {
        return vmm_fail(err, "--accel: no memory for %u modelled processors: lower --cpus",
                        a->pcpu_count);
    }
    /* What a guest would read from the APIC access page if the model redirected nothing. */
    memset(a->arena, 0xff, PAGE);
    vmm_hpa_init(&a->hpa);
    if (!vmm_hpa_add(&a->hpa, a->arena, a->arena_size) ||
        !vmm_hpa_add(&a->hpa, m->pages, (uint64_t)cpus * APIC_PAGE_SIZE) ||
        !vmm_hpa_add(&a->hpa, m->cpu, (uint64_t)cpus * sizeof(*m->cpu))) {
        return vmm_fail(err, "--accel: cannot place the modelled memory: lower --cpus");
    }
    a->scratch_hpa = vmm_hpa_of(&a->hpa, a->arena);
    return 0;
}

/* IDs run against the vCPUs' numbers, so that whoever mixes them up is noticed. */
static int make_processors(struct vmm_machine *m, struct vmm_accel *a, struct vmm_err *err)
{
    bool good = vapic_sil_init(&a->silicon, &modes[a->mode].silicon, &vmm_accel_sil_host, m,
                               a->sil_cpus, a->pcpu_count);

    for (unsigned i = 0; i < a->pcpu_count && good; i++) {
        struct vmm_accel_pcpu *p = &a->pcpus[i];
        uint32_t id = a->pcpu_count - 1 - i;

        good = vapic_sil_cpu_init(&p->sil, &a->silicon, id) &&
               vapic_pcpu_init(&p->pcpu, sizeof(p->pcpu), id) == VAPIC_OK;
        pthread_mutex_init(&p->flushing, NULL);
        a->free[a->pcpu_count - 1 - i] = p;
    }
    a->free_count = a->pcpu_count;
    return good ? 0 : vmm_fail(err, "--accel: the model refuses %u processors", a->pcpu_count);
}

int vmm_accel_make(struct vmm_machine *m, enum vmm_accel_mode mode, unsigned spare,
                   struct vmm_err *err)
{
    struct vapic_accel_config config = {
        .kind = modes[mode].kind,
        .features = modes[mode].features,
        .max_id = m->config.cpus - 1,
        .notify_vector = VMM_ACCEL_NOTIFY_VECTOR,
        .wakeup_vector = VMM_ACCEL_WAKEUP_VECTOR,
    };
    size_t tables = vapic_accel_memory(&config);
    struct vmm_accel *a = calloc(1, sizeof(*a));
    int rc;

    m->accel = a;
    if (a == NULL) {
        return vmm_fail(err, "--accel: no memory");
    }
    a->mode = mode;
    a->intel = config.kind == VAPIC_ACCEL_APICV;
    a->pcpu_count = m->config.cpus + spare;
    pthread_mutex_init(&a->free_lock, NULL);
    if (tables == 0) {
        return vmm_fail(err, "--accel %s: no tables for %u vCPUs", vmm_accel_names[mode],
                        m->config.cpus);
    }
    if (make_memory(m, a, tables, err) != 0 || make_processors(m, a, err) != 0) {
        return -1;
    }
    rc = vapic_accel_init(&a->lib, sizeof(a->lib), &m->vm, &config, a->arena + PAGE, tables);
    return rc == VAPIC_OK ? 0
                          : vmm_fail(err, "libvapic: --accel %s: %s", vmm_accel_names[mode],
                                     vapic_result_text(rc));
}

void vmm_accel_free(struct vmm_machine *m)
{
    struct vmm_accel *a = m->accel;

    if (a == NULL) {
        return;
    }
    if (a->lib.vm != NULL) {
        vapic_accel_fini(&a->lib);
    }
    if (a->arena != NULL) {
        munmap(a->arena, a->arena_size);
    }
    vmm_timeline_fini(&a->timeline);
    free(a->vcpus);
    free(a->pcpus);
    free(a->sil_cpus);
    free(a->free);
    free(a->boot_masks);
    free(a);
    m->accel = NULL;
}

void vmm_accel_rebooted(struct vmm_machine *m)
{
    struct vmm_accel *a = m->accel;
    uint32_t *more = realloc(a->boot_masks, (a->boot_mask_count + 1) * sizeof(*more));
    uint32_t held = vmm_disturb_held(m); /* on both sides: a script may be in between */
    uint32_t bits = vapic_inhibits(&m->vm).bits;

    held |= vmm_disturb_held(m);
    if (more != NULL) {
        a->boot_masks = more;
        a->boot_masks[a->boot_mask_count++] = bits & ~held;
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* A vCPU's control block: what is the host's                                                     */
/* ---------------------------------------------------------------------------------------------- */

static void put64(uint8_t *vmcb, uint32_t offset, uint64_t value)
{
    memcpy(vmcb + offset, &value, sizeof(value));
}

static void put32(uint8_t *vmcb, uint32_t offset, uint32_t value)
{
    memcpy(vmcb + offset, &value, sizeof(value));
}

static void init_vmcb(struct vmm_machine *m, struct vmm_vcpu *v)
{
    struct vmm_accel_vcpu *a = v->accel;

    memset(a->map, 0xff, SVM_MSRPM_SIZE);
    put32(a->vmcb, VMCB_INTERCEPT3,
          VMCB_I3_INTR | VMCB_I3_NMI | VMCB_I3_SMI | VMCB_I3_INIT | VMCB_I3_HLT | VMCB_I3_MSR |
              VMCB_I3_SHUTDOWN);
    put32(a->vmcb, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    put64(a->vmcb, VMCB_MSRPM_BASE, vmm_hpa_of(&m->accel->hpa, a->map));
    put32(a->vmcb, VMCB_ASID, v->index + 1);
    put64(a->vmcb, VMCB_INT_CTL, VMCB_V_INTR_MASKING);
    put64(a->vmcb, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
}

static bool init_vmcs(struct vmm_machine *m, struct vmm_vcpu *v)
{
    const struct {
        uint32_t field;
        uint64_t value;
    } fields[] = {
        {VMCS_PIN_CONTROLS, VMX_PIN_MUST | VMX_PIN_EXTINT_EXITING | VMX_PIN_NMI_EXITING},
        {VMCS_PRIMARY_CONTROLS,
         VMX_PRI_MUST | VMX_PRI_HLT_EXITING | VMX_PRI_MSR_BITMAPS | VMX_PRI_SECONDARY},
        {VMCS_SECONDARY_CONTROLS, VMX_SEC_EPT | VMX_SEC_VPID | VMX_SEC_UNRESTRICTED_GUEST},
        {VMCS_EXIT_CONTROLS, EXC_ACKNOWLEDGE},
        {VMCS_ENTRY_CONTROLS, VMX_ENTRY_MUST},
        {VMCS_VPID, v->index + 1},
        {VMCS_EPTP, EPTP_BASE | EPTP_WRITE_BACK},
        {VMCS_MSR_BITMAP, vmm_hpa_of(&m->accel->hpa, v->accel->map)},
        {VMCS_APIC_ACCESS, m->accel->scratch_hpa},
    };
    bool good = true;

    memset(v->accel->map, 0xff, PAGE);
    vapic_sil_vmcs_init(&v->accel->vmcs);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        good &= vapic_sil_vmwrite(&v->accel->vmcs, fields[i].field, fields[i].value);
    }
    return good;
}

int vmm_accel_attach(struct vmm_vcpu *v, struct vmm_err *err)
{
    struct vmm_machine *m = v->machine;
    struct vmm_accel *a = m->accel;
    uint8_t *own = a->arena + a->arena_size - (m->config.cpus - v->index) * vcpu_bytes(a);
    struct vapic_accel_vcpu_config config = {.vmcb = NULL};
    int rc;

    v->accel = &a->vcpus[v->index];
    if (a->intel) {
        v->accel->map = own;
        if (!init_vmcs(m, v)) {
            return vmm_fail(err, "--accel: the model lacks a field of the VMCS");
        }
    } else {
        config.vmcb = v->accel->vmcb = own;
        v->accel->vmcb_hpa = vmm_hpa_of(&a->hpa, own);
        v->accel->map = own + VMCB_SIZE;
        init_vmcb(m, v);
    }
    rc = vapic_accel_attach(&v->apic, &v->accel->lib, sizeof(v->accel->lib), &config);
    return rc == VAPIC_OK ? 0
                          : vmm_fail(err, "libvapic: acceleration of vCPU %u: %s", v->index,
                                     vapic_result_text(rc));
}

/* ---------------------------------------------------------------------------------------------- */
/* On a processor                                                                                 */
/* ---------------------------------------------------------------------------------------------- */

static struct vmm_accel_pcpu *take_free(struct vmm_accel *a)
{
    struct vmm_accel_pcpu *p;

    pthread_mutex_lock(&a->free_lock);
    p = a->free_count != 0 ? a->free[--a->free_count] : NULL;
    pthread_mutex_unlock(&a->free_lock);
    return p;
}

static void give_back(struct vmm_accel *a, struct vmm_accel_pcpu *p)
{
    pthread_mutex_lock(&a->free_lock);
    a->free[a->free_count++] = p;
    pthread_mutex_unlock(&a->free_lock);
}

/* Whoever was here before may have left translations under the same tag. */
static void go_to(struct vmm_vcpu *v, struct vmm_accel_pcpu *p)
{
    v->accel->on = p;
    v->accel->moved = true;
    atomic_store(&p->driver, v);
    vmm_accel_flush(p);
    vapic_load(&v->apic, &p->pcpu);
}

static struct vmm_accel_pcpu *go_away(struct vmm_vcpu *v)
{
    struct vmm_accel_pcpu *p = v->accel->on;

    vapic_put(&v->apic);
    atomic_store(&p->driver, NULL);
    v->accel->on = NULL;
    return p;
}

/*
 * Whoever counts as being in the guest must not wait for a lock, whose holder may wait for it to
 * come out; and vapic_enter() itself may.
 */
void vmm_accel_step_out(struct vmm_vcpu *v)
{
    if (vapic_in_guest(&v->apic)) {
        vapic_exit(&v->apic, vmm_accel_cr8(v), true);
        atomic_fetch_add(&v->accel->outside, 1);
    }
}

/* There are at least as many processors as vCPUs, and a vCPU holds one at most. */
void vmm_accel_begin(struct vmm_vcpu *v)
{
    atomic_store(&v->accel->move, false);
    go_to(v, take_free(v->machine->accel));
}

void vmm_accel_end(struct vmm_vcpu *v)
{
    vmm_accel_step_out(v);
    give_back(v->machine->accel, go_away(v));
}

static void move(struct vmm_vcpu *v)
{
    struct vmm_accel *a = v->machine->accel;
    struct vmm_accel_pcpu *to = take_free(a);

    if (to == NULL) {
        return;
    }
    give_back(a, go_away(v));
    go_to(v, to);
    v->accel->counts.moves++;
}

/*
 * Before vapic_enter(), never between it and the model's entry: a notification that arrives there
 * belongs to the guest.
 */
void vmm_accel_host_mode_work(struct vmm_vcpu *v)
{
    struct vmm_accel_vcpu *a = v->accel;
    int vector;

    vmm_accel_step_out(v);
    atomic_store(&a->leave, false);
    while ((vector = vapic_sil_take_interrupt(&a->on->sil)) >= 0) {
        if (vector == VMM_ACCEL_WAKEUP_VECTOR) {
            vapic_wakeup(&v->machine->vm, &a->on->pcpu);
        }
    }
    if (atomic_load(&a->move) && atomic_exchange(&a->move, false)) {
        move(v);
    }
}
