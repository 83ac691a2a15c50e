// What a launch did wrong: recorded where it happens, written out when the launch has ended.

#include <dlfcn.h>
#include <signal.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "internal.h"

extern cuda_on_host::Size blockIdx;

namespace cuda_on_host {

namespace {

struct Fault {
  bool happened;
  Size block, thread;
  bool in_thread;
  std::string text, other_text;
  const void *pc, *other;
  Site site;
};

Fault found;
std::string report;
int error = success;

// "file:line" of an instruction, the innermost one that is not in our headers; or "".
std::string locate(const void* pc, bool function) {
  Dl_info image;
  if (pc == nullptr || dladdr(pc, &image) == 0) return "";
  const size_t offset = static_cast<const char*>(pc) - static_cast<char*>(image.dli_fbase);
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -i -C %s -e '%s' %zx 2>/dev/null",
                function ? "-f" : "", image.dli_fname, function ? offset : offset - 1);
  FILE* pipe = popen(command, "r");
  if (pipe == nullptr) return "";
  std::string place;
  char line[4096];
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    line[std::strcspn(line, function ? "\n" : " \n")] = 0;
    const bool ours = std::strstr(line, "cuda_on_host/include/") != nullptr;
    if (place.empty() && !ours && line[0] != '?') place = line;
  }
  pclose(pipe);
  return place;
}

std::string place_of(const void* pc, Site site) {
  const std::string place =
      site.file != nullptr ? std::string(site.file) + ":" + std::to_string(site.line)
                           : locate(pc, false);
  return place.empty() ? "" : " at " + place;
}

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction previous_actions[4];
stack_t previous_stack;

void on_signal(int number, siginfo_t* info, void* context) {
  if (current == nullptr) {  // not ours: again, to whom it concerned before
    for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &previous_actions[i], nullptr);
    return;
  }
  const auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* address = static_cast<unsigned char*>(info->si_addr);
  const char* text = number == SIGFPE   ? "integer division by zero"
                     : number == SIGILL ? "illegal instruction"
                     : address - current->stack < 4096 && address >= current->stack
                         ? "stack overflow"
                         : format("access to address %p, which is not mapped", info->si_addr);
  record(text, reinterpret_cast<void*>(registers[REG_RIP] + 1));
  leave();
}

}  // namespace

std::string triple(Size size) {
  char text[64];
  std::snprintf(text, sizeof text, "(%u, %u, %u)", size.x, size.y, size.z);
  return text;
}

std::string at(Site site) { return place_of(nullptr, site); }

void record(const std::string& text, const void* pc, Site site, const void* other,
            const char* other_text) {
  found = {true, blockIdx, current ? current->index : Size{}, current != nullptr, text, other_text,
           pc, other, site};
}

bool fault_happened() { return found.happened; }

void forget_faults() {
  found = {};
  report.clear();
}

int finish(int code) { return error = code; }

void write_report(const Launch& launched) {
  const std::string name = locate(launched.kernel, true);
  report = "kernel " + (name.empty() ? launched.name : name) + ", block " + triple(found.block);
  if (found.in_thread) report += ", thread " + triple(found.thread);
  report += ": " + found.text + place_of(found.pc, found.site);
  if (found.other_text.empty()) return;
  report += "; " + found.other_text + place_of(found.other, {nullptr, 0});
}

SignalGuard::SignalGuard() {
  static unsigned char stack[64 * 1024];
  stack_t alternative = {};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, &previous_stack);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &action, &previous_actions[i]);
}

SignalGuard::~SignalGuard() {
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &previous_actions[i], nullptr);
  sigaltstack(&previous_stack, nullptr);
}

void fault(const void* pc, const char* text, const void* other, const char* other_text) {
  record(text, pc, {nullptr, 0}, other, other_text);
  leave();
}

void fault(Site site, const char* text) {
  record(text, nullptr, site);
  leave();
}

void trap(const char* what, Site site) { fault(site, what); }

const char* format(const char* text, ...) {
  static char line[1024];
  va_list arguments;
  va_start(arguments, text);
  std::vsnprintf(line, sizeof line, text, arguments);
  va_end(arguments);
  return line;
}

int last_error(bool clear) {
  const int last = error;
  if (clear) error = success;
  return last;
}

const char* error_string(int code) {
  switch (code) {
    case success: return "no error";
    case invalid_value: return "invalid argument";
    case invalid_configuration: return "invalid configuration argument";
    case launch_failure: return report.c_str();
  }
  return "unknown error";
}

}  // namespace cuda_on_host

extern "C" const char* cuda_on_host_fault() { return cuda_on_host::report.c_str(); }
