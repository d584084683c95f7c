/* test_file.c: runtime/file.c, reading to the end and replacing as a whole. */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static bptt_error error;

START_TEST(test_read_back_with_nul_after)
{
    const char *path = scratch("a");
    unsigned char *bytes = NULL;
    size_t length = 99;
    ck_assert_int_eq(bptt_file_write(path, "one\0two", 7, &error), BPTT_OK);
    assert_file_is(path, "one\0two", 7);
    ck_assert_int_eq(bptt_file_read(path, 7, &bytes, &length, &error), BPTT_OK);
    ck_assert_uint_eq(length, 7);
    ck_assert(same_bytes(bytes, "one\0two\0", 8));
    free(bytes);
    ck_assert_int_eq(bptt_file_write(path, "", 0, &error), BPTT_OK);
    ck_assert_int_eq(bptt_file_read(path, 0, &bytes, &length, &error), BPTT_OK);
    ck_assert_uint_eq(length, 0);
    ck_assert_int_eq(bytes[0], 0);
    free(bytes);
    ck_assert_int_eq(scratch_files(1), 1);
}
END_TEST

START_TEST(test_parts_in_order)
{
    const bptt_file_part parts[] = {{"ab", 2}, {"", 0}, {"c", 1}};
    const char *path = scratch("parts");
    ck_assert_int_eq(bptt_file_write_parts(path, parts, 3, &error), BPTT_OK);
    assert_file_is(path, "abc", 3);
    ck_assert_int_eq(scratch_files(1), 1);
}
END_TEST

START_TEST(test_read_refusals)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    scratch_put(scratch("long"), "12345", 5);
    ck_assert_int_eq(bptt_file_read(scratch("long"), 4, &bytes, &length, &error), BPTT_FAILED);
    assert_says(&error, "has 5 bytes, more than the 4 allowed here");
    ck_assert_ptr_null(bytes);
    ck_assert_int_eq(bptt_file_read(scratch("none"), 4, &bytes, &length, &error), BPTT_FAILED);
    assert_says(&error, "none: cannot open: No such file or directory");
    ck_assert_int_eq(bptt_file_read(scratch_folder, 4, &bytes, &length, &error), BPTT_FAILED);
    assert_says(&error, "a folder, not a file");
    ck_assert_int_eq(bptt_file_read("/dev/zero", SIZE_MAX, &bytes, &length, &error), BPTT_FAILED);
    assert_says(&error, "a device, not a file");
    (void)scratch_files(1);
}
END_TEST

/* A pipe tells no size: 200000 bytes make the buffer grow twice; with a limit the reading stops. */
START_TEST(test_read_pipe)
{
    enum { SIZE = 200000 };
    const char *path = scratch("pipe");
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    for (size_t limit = SIZE - 1; limit <= SIZE; limit++) {
        pid_t writer = fork();
        ck_assert_int_ge(writer, 0);
        if (writer == 0) {
            static unsigned char sent[SIZE];
            for (int i = 0; i < SIZE; i++) { sent[i] = (unsigned char)(i * 7 % 251); }
            int file = open(path, O_WRONLY);
            (void)signal(SIGPIPE, SIG_IGN);
            for (ssize_t at = 0, done = 0; at < SIZE && done >= 0; at += done) {
                done = write(file, sent + at, (size_t)(SIZE - at));
            }
            _exit(0);
        }
        unsigned char *bytes = NULL;
        size_t length = 0;
        bptt_status status = bptt_file_read(path, limit, &bytes, &length, &error);
        ck_assert_int_eq(waitpid(writer, NULL, 0), writer); /* or the next round would read from this writer */
        ck_assert_int_eq(status, limit < SIZE ? BPTT_FAILED : BPTT_OK);
        ck_assert_uint_eq(length, limit < SIZE ? 0 : SIZE);
        for (size_t i = 0; i < length; i++) { ck_assert_uint_eq(bytes[i], i * 7 % 251); }
        free(bytes);
    }
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_write_keeps_link_and_mode)
{
    struct stat info;
    scratch_put(scratch("real"), "old", 3);
    ck_assert_int_eq(chmod(scratch("real"), 0640), 0);
    ck_assert_int_eq(symlink("real", scratch("link")), 0);
    ck_assert_int_eq(bptt_file_write(scratch("link"), "new", 3, &error), BPTT_OK);
    assert_file_is(scratch("real"), "new", 3);
    ck_assert_int_eq(lstat(scratch("link"), &info), 0);
    ck_assert(S_ISLNK(info.st_mode));
    ck_assert_int_eq(stat(scratch("real"), &info), 0);
    ck_assert_int_eq(info.st_mode & 07777, 0640);
    ck_assert_int_eq(scratch_files(1), 2);
}
END_TEST

START_TEST(test_write_refusals)
{
    ck_assert_int_eq(bptt_file_write("/dev/full", "x", 1, &error), BPTT_FAILED);
    assert_says(&error, "/dev/full: cannot write: a device, not a file");
    struct stat info;
    ck_assert_int_eq(stat("/dev/full", &info), 0);
    ck_assert(S_ISCHR(info.st_mode));
    ck_assert_int_eq(bptt_file_write(scratch_folder, "x", 1, &error), BPTT_FAILED);
    assert_says(&error, "a folder, not a file");
    ck_assert_int_eq(bptt_file_write(scratch("no/such"), "x", 1, &error), BPTT_FAILED);
    assert_says(&error, "No such file or directory");
    ck_assert_int_eq(bptt_file_write("", "x", 1, &error), BPTT_FAILED);
    ck_assert_int_eq(scratch_files(1), 0);
}
END_TEST

/* The disk is full after 1000 bytes, as far as this process can tell. */
START_TEST(test_full_disk_leaves_target)
{
    static char large[5000];
    const char *path = scratch("kept");
    const struct rlimit limit = {1000, 1000};
    scratch_put(path, "precious", 8);
    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(bptt_file_write(path, large, sizeof large, &error), BPTT_FAILED);
    assert_says(&error, "kept: cannot write: File too large");
    assert_file_is(path, "precious", 8);
    ck_assert_int_eq(scratch_files(1), 1);
}
END_TEST

START_TEST(test_read_only_folder_leaves_target)
{
    const char *path = scratch("kept");
    scratch_put(path, "precious", 8);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(chmod(scratch_folder, 0555), 0);
    const uid_t me = geteuid();
    if (me == 0) { ck_assert_int_eq(seteuid(65534), 0); } /* root may write everywhere */
    bptt_status status = bptt_file_write(path, "x", 1, &error);
    bptt_status other = bptt_file_write(scratch("new"), "x", 1, &error);
    if (me == 0) { ck_assert_int_eq(seteuid(0), 0); }
    ck_assert_int_eq(chmod(scratch_folder, 0755), 0);
    ck_assert_int_eq(status, BPTT_FAILED);
    ck_assert_int_eq(other, BPTT_FAILED);
    assert_says(&error, "new: cannot write: a temporary file beside it: Permission denied");
    assert_file_is(path, "precious", 8);
    ck_assert_int_eq(scratch_files(1), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *cases = tcase_create("file");
    tcase_add_unchecked_fixture(cases, scratch_open, scratch_close);
    tcase_add_test(cases, test_read_back_with_nul_after);
    tcase_add_test(cases, test_parts_in_order);
    tcase_add_test(cases, test_read_refusals);
    tcase_add_test(cases, test_read_pipe);
    tcase_add_test(cases, test_write_keeps_link_and_mode);
    tcase_add_test(cases, test_write_refusals);
    tcase_add_test(cases, test_full_disk_leaves_target);
    tcase_add_test(cases, test_read_only_folder_leaves_target);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
