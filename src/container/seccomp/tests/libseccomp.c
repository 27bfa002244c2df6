/*
 * Asks libseccomp for its answer. Reads commands from the standard input, writes records to the standard output.
 *
 *   number ARCH NAME              what libseccomp calls NAME on ARCH: prints the number, or "unknown"
 *   begin DEFAULT                 a new filter with this default action (hexadecimal)
 *   arch ARCH                     adds an architecture (libseccomp's name: x86_64, x86, x32, aarch64, arm)
 *   optimize LEVEL                SCMP_FLTATR_CTL_OPTIMIZE
 *   rule ACTION NAME N [INDEX OP A B]...   adds a rule; OP is EQ, NE, LT, LE, GT, GE, MASKED_EQ
 *   end                           prints "program N" and N lines "code jt jf k", or "error ERRNO"
 *
 * After a rule that libseccomp refuses, the filter answers "error" at its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static enum scmp_compare operator_of(const char *name)
{
	static const struct { const char *name; enum scmp_compare op; } known[] = {
		{ "EQ", SCMP_CMP_EQ }, { "NE", SCMP_CMP_NE }, { "LT", SCMP_CMP_LT }, { "LE", SCMP_CMP_LE },
		{ "GT", SCMP_CMP_GT }, { "GE", SCMP_CMP_GE }, { "MASKED_EQ", SCMP_CMP_MASKED_EQ },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].op;
	fprintf(stderr, "unknown operator %s\n", name);
	exit(2);
}

static int add_rule(scmp_filter_ctx filter, char *line)
{
	struct scmp_arg_cmp args[6];
	unsigned int count, action;
	char name[64];
	int used;

	if (sscanf(line, "rule %x %63s %u%n", &action, name, &count, &used) != 3 || count > 6)
		exit(2);
	for (unsigned int i = 0; i < count; i++) {
		char op[16];
		int more;
		line += used;
		if (sscanf(line, "%u %15s %" SCNx64 " %" SCNx64 "%n", &args[i].arg, op, &args[i].datum_a,
			   &args[i].datum_b, &more) != 4)
			exit(2);
		args[i].op = operator_of(op);
		used = more;
	}
	int number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return 0;
	return seccomp_rule_add_array(filter, action, number, count, args);
}

static void print_program(scmp_filter_ctx filter)
{
	int file = memfd_create("program", 0);
	int result = file < 0 ? -errno : seccomp_export_bpf(filter, file);
	if (result != 0) {
		printf("error %d\n", -result);
		close(file);
		return;
	}
	struct sock_filter program[4 * BPF_MAXINSNS];
	ssize_t size = pread(file, program, sizeof(program), 0);
	close(file);
	printf("program %zd\n", size / (ssize_t)sizeof(program[0]));
	for (ssize_t i = 0; i < size / (ssize_t)sizeof(program[0]); i++)
		printf("%u %u %u %u\n", program[i].code, program[i].jt, program[i].jf, program[i].k);
}

int main(void)
{
	static char line[4096];
	scmp_filter_ctx filter = NULL;
	int failed = 0;

	while (fgets(line, sizeof(line), stdin) != NULL) {
		char word[64], name[64];
		unsigned int value;
		if (sscanf(line, "number %63s %63s", word, name) == 2) {
			int number = seccomp_syscall_resolve_name_arch(seccomp_arch_resolve_name(word), name);
			if (number == __NR_SCMP_ERROR)
				printf("unknown\n");
			else
				printf("%d\n", number);
		} else if (sscanf(line, "begin %x", &value) == 1) {
			filter = seccomp_init(value);
			failed = filter == NULL ? -EINVAL : 0;
		} else if (sscanf(line, "arch %63s", word) == 1) {
			int result = seccomp_arch_add(filter, seccomp_arch_resolve_name(word));
			if (result != 0 && result != -EEXIST)
				failed = result;
		} else if (sscanf(line, "optimize %u", &value) == 1) {
			int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, value);
			if (result != 0)
				failed = result;
		} else if (strncmp(line, "rule ", 5) == 0) {
			int result = add_rule(filter, line);
			if (result != 0 && failed == 0)
				failed = result;
		} else if (strncmp(line, "end", 3) == 0) {
			if (failed != 0)
				printf("error %d\n", -failed);
			else
				print_program(filter);
			seccomp_release(filter);
			filter = NULL;
		} else {
			fprintf(stderr, "unknown command: %s", line);
			return 2;
		}
		fflush(stdout);
	}
	return 0;
}
