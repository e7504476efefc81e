! Interfaces of simenv_qpi.h by iso_c_binding. Objects are type(c_ptr); a text for the library ends
! with c_null_char; indices count from 0 as in C. See the header for the meaning of every function.
module simenv_qpi
   use, intrinsic :: iso_c_binding
   implicit none
   public

   integer(c_int), parameter :: qpi_abi = 1
   integer(c_int), parameter :: qpi_ok = 0, qpi_option = 2, qpi_program = 4, qpi_not_found = 13, &
      qpi_no_service = 14, qpi_service_lost = 15, qpi_task_failed = 19, qpi_task_cancelled = 20, &
      qpi_timeout = 22, qpi_no_data = 23, qpi_pending = 24
   integer(c_int), parameter :: qpi_counts_output = 1, qpi_probabilities_output = 2, &
      qpi_statevector_output = 4, qpi_expectation_output = 8
   real(c_double), parameter :: qpi_forever = -1.0_c_double

   type, bind(c) :: qpi_config
      integer(c_size_t) :: struct_bytes
      type(c_ptr) :: environment, url, token
      real(c_double) :: timeout_s, patience_s
   end type

   type, bind(c) :: qpi_device
      character(kind=c_char) :: name(72), kind(72), model(72)
      integer(c_int64_t) :: num_qubits, max_shots
   end type

   type, bind(c) :: qpi_observable
      type(c_ptr) :: labels, coefficients
      integer(c_size_t) :: terms
   end type

   type, bind(c) :: qpi_noise_factor
      type(c_ptr) :: component
      real(c_double) :: factor
   end type

   type, bind(c) :: qpi_options
      integer(c_size_t) :: struct_bytes
      integer(c_int64_t) :: shots
      integer(c_int) :: has_seed
      integer(c_int64_t) :: seed
      integer(c_int) :: outputs
      type(c_ptr) :: observables
      integer(c_size_t) :: num_observables
      type(c_ptr) :: device, engine
      integer(c_int) :: single_precision
      integer(c_int64_t) :: priority
      real(c_double) :: queue_timeout_s, run_timeout_s
      type(c_ptr) :: name, idempotency_key, noise
      integer(c_size_t) :: num_noise
      type(c_ptr) :: account, qos
      integer(c_int64_t) :: reservation
   end type

   interface
      integer(c_int) function qpi_abi_version() bind(c)
         import
      end function
      type(c_ptr) function qpi_version() bind(c)
         import
      end function
      type(c_ptr) function qpi_error_message() bind(c)
         import
      end function
      type(c_ptr) function qpi_error_hint() bind(c)
         import
      end function
      subroutine qpi_config_init(config) bind(c)
         import
         type(qpi_config), intent(out) :: config
      end subroutine
      integer(c_int) function qpi_init(config, session) bind(c)
         import
         type(qpi_config), intent(in), optional :: config
         type(c_ptr), intent(out) :: session
      end function
      subroutine qpi_finalize(session) bind(c)
         import
         type(c_ptr), value :: session
      end subroutine
      integer(c_int) function qpi_devices(session, timeout_s, devices, capacity, count) bind(c)
         import
         type(c_ptr), value :: session
         real(c_double), value :: timeout_s
         integer(c_size_t), value :: capacity
         type(qpi_device), intent(out) :: devices(*)
         integer(c_size_t), intent(out) :: count
      end function
      integer(c_int) function qpi_circuit_from_qasm(text, circuit) bind(c)
         import
         character(kind=c_char), intent(in) :: text(*)
         type(c_ptr), intent(out) :: circuit
      end function
      subroutine qpi_circuit_free(circuit) bind(c)
         import
         type(c_ptr), value :: circuit
      end subroutine
      subroutine qpi_options_init_sized(options, struct_bytes) bind(c)
         import
         type(qpi_options), intent(out) :: options
         integer(c_size_t), value :: struct_bytes
      end subroutine
      integer(c_int) function qpi_submit(session, circuit, options, bindings, rows, timeout_s, &
                                         job) bind(c)
         import
         type(c_ptr), value :: session, circuit
         type(qpi_options), intent(in), optional :: options
         real(c_double), intent(in), optional :: bindings(*)
         integer(c_size_t), value :: rows
         real(c_double), value :: timeout_s
         type(c_ptr), intent(out) :: job
      end function
      integer(c_size_t) function qpi_poll(job) bind(c)
         import
         type(c_ptr), value :: job
      end function
      integer(c_int) function qpi_wait(job, timeout_s) bind(c)
         import
         type(c_ptr), value :: job
         real(c_double), value :: timeout_s
      end function
      integer(c_int) function qpi_cancel(job, timeout_s) bind(c)
         import
         type(c_ptr), value :: job
         real(c_double), value :: timeout_s
      end function
      subroutine qpi_job_free(job) bind(c)
         import
         type(c_ptr), value :: job
      end subroutine
      integer(c_int) function qpi_row_status(job, row) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row
      end function
      integer(c_int) function qpi_counts_size(job, row, outcomes) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row
         integer(c_size_t), intent(out) :: outcomes
      end function
      integer(c_int) function qpi_counts_entry(job, row, index, bits, capacity, count) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row, index, capacity
         character(kind=c_char), intent(out) :: bits(*)
         integer(c_int64_t), intent(out) :: count
      end function
      integer(c_int) function qpi_probabilities_size(job, row, outcomes) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row
         integer(c_size_t), intent(out) :: outcomes
      end function
      integer(c_int) function qpi_probabilities_entry(job, row, index, bits, capacity, &
                                                      probability) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row, index, capacity
         character(kind=c_char), intent(out) :: bits(*)
         real(c_double), intent(out) :: probability
      end function
      integer(c_int) function qpi_warnings_size(job, row, warnings) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row
         integer(c_size_t), intent(out) :: warnings
      end function
      integer(c_int) function qpi_warning(job, row, index, text, capacity) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row, index, capacity
         character(kind=c_char), intent(out) :: text(*)
      end function
      integer(c_int) function qpi_expectation(job, row, index, value, standard_error) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row, index
         real(c_double), intent(out) :: value, standard_error
      end function
      integer(c_int) function qpi_statevector(job, row, amplitudes, capacity) bind(c)
         import
         type(c_ptr), value :: job
         integer(c_size_t), value :: row, capacity
         complex(c_double_complex), intent(out) :: amplitudes(*)
      end function
   end interface

contains

   subroutine qpi_options_init(options)
      type(qpi_options), intent(out) :: options
      call qpi_options_init_sized(options, c_sizeof(options))
   end subroutine

   ! The text of the last error of this thread.
   function qpi_error_text() result(text)
      character(len=:), allocatable :: text
      character(kind=c_char), pointer :: found(:)
      integer :: length
      call c_f_pointer(qpi_error_message(), found, [1024])
      length = 0
      do while (found(length + 1) /= c_null_char)
         length = length + 1
      end do
      allocate (character(len=length) :: text)
      text = transfer(found(1:length), text)
   end function
end module
