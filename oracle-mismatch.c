/* touch(0x100004007b95, 0x1) returned 0, the kernel says -14 */
/* cc -o case case.c && ./case */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *name, long ret)
{
	if (ret == -1)
		printf("%s = %s\n", name, strerror(errno));
	else
		printf("%s = %#lx\n", name, ret);
	fflush(stdout);
}

#define CALL(text, ...) show(text, syscall(__VA_ARGS__))
#define READ(addr) show("read " #addr, pwrite(scratch, (void *)(addr), 1, 0))
#define WRITE(addr) show("write " #addr, pread(scratch, (void *)(addr), 1, 0))


int main(void)
{
	char path[64], line[512];
	unsigned long start;
	int inside = 0, scratch = memfd_create("scratch", 0);
	FILE *smaps;

	(void)path;
	if (ftruncate(scratch, 4096))
		return 1;
	CALL("mmap", SYS_mmap, 0x100004006000UL, 0xe000UL, 0x4UL, 0x32UL, -1L, 0x0UL);
	READ(0x100004007b95UL);
	smaps = fopen("/proc/self/smaps", "r");
	while (smaps && fgets(line, sizeof(line), smaps)) {
		int head = sscanf(line, "%lx-", &start) == 1 && strchr(line, '-') == line + strcspn(line, "-");
		if (head && strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
			inside = start >= 0x100000000000UL && start < 0x100040000000UL;
		else
			head = 0;
		if (inside && (head || !strncmp(line, "VmFlags", 7)))
			fputs(line, stdout);
	}
	return 0;
}
