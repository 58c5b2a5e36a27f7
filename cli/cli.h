/* SPDX-License-Identifier: MIT */
/* The subcommands of `vapic`; each returns the exit status. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

enum cli_status {
    CLI_OK = 0,
    CLI_FAILED = 1, /* the thing examined failed */
    CLI_USAGE = 2,  /* bad arguments, files or host */
    CLI_GUEST = 4,  /* the guest triple-faulted, or KVM cannot run it */
};

/* argv[0] is the subcommand's name. */
int cli_check(int argc, char **argv);
int cli_diff(int argc, char **argv);
int cli_run(int argc, char **argv);

#endif
